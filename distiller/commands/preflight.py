"""``python -m distiller preflight``: find faults before any GPU is taken."""

from __future__ import annotations

from pathlib import Path

from distiller import preflight as checks
from distiller.commands.console import RecipeFile, load_recipe
from distiller.corpus import Encoder
from evaluator import runner


def preflight(recipe: RecipeFile) -> None:
    """Check a recipe's base, template and prompts (a JSONL file) in seconds."""
    chosen = load_recipe(recipe)
    encoder = Encoder(Path(chosen.base), chosen)
    prompts = runner.load_problems(Path(chosen.prompts.set))[: chosen.prompts.limit]
    results = checks.checks_before_generation(chosen, encoder, prompts)
    for check in results:
        sign = {True: "ok", False: "FAILED", None: "note"}[check.passed]
        print(f"{sign:6} {check.name}: {check.detail}")
    checks.require_passed(results)

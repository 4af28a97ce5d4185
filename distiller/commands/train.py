"""``python -m distiller train``: fine-tune a base on a corpus."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from distiller import corpus as corpora
from distiller import preflight as checks
from distiller.checks import Level
from distiller.commands.console import RecipeFile, load_recipe, progress_bars
from distiller.recipe import Recipe
from evaluator.terminal import printable

_HELP = """Fine-tune the recipe's base on a corpus. Interrupt it at any time: it goes on later.

The corpus, the base and the recipe are checked first, in seconds; an error ends it with exit code
2. Several GPUs of one host share the work by themselves (--device cuda), several processes with
--processes. A launcher may start the processes instead; each is then told its place by the
environment (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT), and --processes is left out:

\b
  torchrun --nproc-per-node 8 -m distiller train RECIPE --corpus DIR --out DIR --device cuda
"""


def train(
    recipe: RecipeFile,
    *,
    corpus: Annotated[Path, typer.Option(help="Folder made by the filter command.")],
    out: Annotated[Path, typer.Option(help="Gets the student; new, or one to replace.")],
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …")] = "cpu",
    processes: Annotated[
        int | None, typer.Option(min=1, help="Share the work; for cuda one per GPU unless given.")
    ] = None,
    preflight: Annotated[bool, typer.Option(help="Look for faults before training.")] = True,
) -> None:
    """Fine-tune; the help text is :data:`_HELP`."""
    from distiller import sft

    chosen = load_recipe(recipe)
    first = os.environ.get("RANK", "0") == "0"  # of a launcher's processes one speaks
    if preflight:
        _require_sound(chosen, corpus, say=first)
    with progress_bars() as bar:
        trained = sft.train(
            corpus,
            Path(chosen.base),
            chosen.training,
            out,
            resume=out.with_name(f"{out.name}.resume"),
            device=device,
            processes=processes,
            on_progress=lambda done, total, tokens: bar("train", done, total),
        )
    if first:
        print(f"student: {trained.checkpoint} ({trained.steps} steps, loss {trained.loss:.4f})")


train.__doc__ = _HELP


def _require_sound(recipe: Recipe, corpus: Path, *, say: bool) -> None:
    """Print what a person should know, a sentence each; end with exit code 2 at an error."""
    from distiller.probe import probe

    examples, manifest = corpora.read(corpus)
    found = checks.of_training(recipe, Path(recipe.base), examples, manifest, probe=probe)
    for level in (Level.ERROR, Level.WARNING):
        for check in found.of(level) if say else ():
            print(f"{level}: {check.name}: {printable(check.detail)}.", file=sys.stderr)
    if found.of(Level.ERROR):
        raise typer.Exit(2)

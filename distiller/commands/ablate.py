"""``python -m distiller ablate``: what a field of the recipe is worth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from distiller import ablation
from distiller.commands.console import CPUS, RecipeFile, load_recipe, progress_bars
from distiller.commands.generate import BaseUrl, EngineOptions, engine_settings
from distiller.errors import InputError
from evaluator import runner
from evaluator.commands.console import cell, load_problems
from evaluator.terminal import printable


def ablate(
    recipe: RecipeFile,
    *,
    grid: Annotated[
        list[str],
        typer.Option(
            help="FIELD=[value, …] as JSON; may be repeated: filters.answer.enabled=[true,false]."
        ),
    ],
    prompts: Annotated[Path, typer.Option(help="JSONL of problems for the teacher.")],
    problems: Annotated[Path, typer.Option(help="The benchmark's problems: JSONL, Parquet, CSV.")],
    out: Annotated[Path, typer.Option(help="Folder of the ablation; new, or one to go on with.")],
    base_url: BaseUrl = None,
    option: EngineOptions = None,
    device: Annotated[str, typer.Option(help="Of the training: cpu, cuda, cuda:1 …")] = "cpu",
    jobs: Annotated[int, typer.Option(min=1, help="Grader processes.")] = CPUS,
) -> None:
    """Train a student for each combination and compare them under one protocol.

    The first combination is what the others are compared with, over the same problems. Interrupt it
    at any time: started again, it goes on after the steps that are finished.
    """
    chosen = load_recipe(recipe)
    if len(chosen.evaluation.benchmarks) != 1:
        raise InputError(
            "recipe: evaluation.benchmarks must name one benchmark, on which all are compared."
        )
    [benchmark] = chosen.evaluation.benchmarks
    plan = ablation.Plan(
        recipe=chosen,
        grid=ablation.parse_grid(grid),
        prompts=runner.load_problems(prompts),
        bench=ablation.Bench(benchmark, load_problems(benchmark, problems)),
        teacher=engine_settings(chosen, base_url, option),
        device=device,
        jobs=jobs,
    )
    with progress_bars() as bar:
        rows = ablation.Ablation(plan, out).run(bar)
    Console().print(table(rows, chosen.evaluation.protocol.name))
    for row in rows:
        if "error" in row:
            print(printable(f"{_values(row)}: {row['error']}"))
    print("One training each: a difference holds what another seed would change, too.")
    print(f"table: {out / 'table.json'}")
    if any("error" in row for row in rows):
        raise typer.Exit(1)


def table(rows: list[dict[str, Any]], protocol: str) -> Table:
    """The cells, each with its score and its difference from the first."""
    made = Table(
        title=f"protocol {cell(protocol)}; differences from the first, paired over problems"
    )
    for field in rows[0]["settings"]:
        made.add_column(cell(field.replace(".", " ")), min_width=8)
    for name in ("examples", "pass@1 (95 %)", "difference", "p (Holm)"):
        made.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        score = row.get("pass@1") or {}
        made.add_row(
            *(cell(json.dumps(value)) for value in row["settings"].values()),
            f"{row['examples']:,}" if "examples" in row else "–",
            _score(score),
            _points(row),
            f"{row['p_holm']:.3g}" if "p_holm" in row else "–",
        )
    return made


def _score(score: dict[str, float | None]) -> str:
    if score.get("value") is None:
        return "–"
    between = f"{_percent(score['low'])}–{_percent(score['high'])}"
    return f"{_percent(score['value'])} ({between})"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"


def _points(row: dict[str, Any]) -> str:
    if "difference" not in row:
        return "–"
    error = "" if row["se"] is None else f" ± {100 * row['se']:.1f}"
    return f"{100 * row['difference']:+.1f}{error}"


def _values(row: dict[str, Any]) -> str:
    return ", ".join(f"{field}={json.dumps(value)}" for field, value in row["settings"].items())

"""``python -m distiller filter``: from traces to a corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from distiller import refining, traces
from distiller.commands.console import CPUS, load_recipe, progress_bars
from evaluator import runner


def filter_traces(
    *,
    traces_file: Annotated[
        list[Path], typer.Option("--traces", help="Segment of completions; may be repeated.")
    ],
    problems: Annotated[Path, typer.Option(help="JSONL of the prompts that were answered.")],
    recipe: Annotated[Path, typer.Option(help="The recipe, a JSON file.")],
    out: Annotated[Path, typer.Option(help="Gets the corpus, the funnel and what was dropped.")],
    benchmark: Annotated[
        list[Path] | None, typer.Option(help="JSONL to decontaminate against; may be repeated.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Grader processes.")] = CPUS,
) -> None:
    """Decontaminate and filter traces, and build the corpus."""
    chosen = load_recipe(recipe)
    prompts = runner.load_problems(problems)
    drawn = list(traces.read(traces_file, prompts))
    with progress_bars() as bar:
        result = refining.refine(
            drawn,
            prompts=prompts,
            recipe=chosen,
            benchmarks=refining.load_benchmarks({path.stem: str(path) for path in benchmark or ()}),
            base_model=Path(chosen.base),
            out=out,
            jobs=jobs,
            on_progress=lambda done, total: bar("filter", done, total),
        )
    table = Table("step", "kept", "dropped", "reasons")
    for step in result["funnel"]["steps"]:
        reasons = ", ".join(f"{code} {count}" for code, count in step["reasons"].items())
        table.add_row(step["step"], str(step["kept"]), str(step["dropped"]), reasons)
    Console().print(table)
    print(f"corpus: {result['corpus']}")

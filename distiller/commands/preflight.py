"""``python -m distiller preflight``: find faults before any GPU is taken."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from distiller import corpus as corpora
from distiller import preflight as checks
from distiller import refining
from distiller.checks import Level
from distiller.commands.console import RecipeFile, load_recipe
from distiller.kept import read_kept
from evaluator import runner
from evaluator.terminal import json_line, printable, printable_lines

_SIGNS = {
    Level.OK: ("ok", "green"),
    Level.NOTE: ("note", "cyan"),
    Level.WARNING: ("warning", "yellow"),
    Level.ERROR: ("ERROR", "bold red"),
}
_MASKED, _SUPERVISED = "grey50", "bold green"


def preflight(
    recipe: RecipeFile,
    *,
    traces: Annotated[
        list[Path] | None, typer.Option(help="kept.jsonl to look at; may be repeated.")
    ] = None,
    corpus: Annotated[Path | None, typer.Option(help="A built corpus to look at.")] = None,
    benchmark: Annotated[
        list[Path] | None,
        typer.Option(help="JSONL that the prompts must not stand in; may be repeated."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Check a recipe in seconds, before any GPU is taken; exit code 2 where it has an error.

    Looks at template, ending token, thinking tags, supervised share, lengths, context, packing,
    memory and contamination, and shows the first example with its loss mask. Before there are
    traces, the answer of a perfect teacher to the first prompt stands in for them.
    """
    from distiller.probe import probe

    chosen = load_recipe(recipe)
    prompts = runner.load_problems(Path(chosen.prompts.set))[: chosen.prompts.limit]
    report = checks.run(
        chosen,
        Path(chosen.base),
        prompts,
        traces=list(read_kept(traces, runner.by_id(prompts))) if traces else None,
        corpus=corpora.read(corpus)[0] if corpus else None,
        benchmarks=refining.load_benchmarks({path.stem: str(path) for path in benchmark or ()}),
        probe=probe,
    )
    if as_json:
        print(json_line(report.to_json(), indent=1))
    else:
        _print(report)
    errors = len(report.of(Level.ERROR))
    if errors:
        plural = "" if errors == 1 else "s"
        print(f"preflight: {errors} error{plural}; nothing should be trained.", file=sys.stderr)
        raise typer.Exit(2)


def _print(report: checks.Report) -> None:
    console = Console(soft_wrap=not sys.stdout.isatty())
    table = Table(box=None, show_header=False, pad_edge=False)
    if console.is_terminal:
        for check in report.checks:
            sign, style = _SIGNS[check.level]
            detail = Text(f"{printable(check.detail)}.")
            table.add_row(Text(sign, style), Text(check.name, "bold"), detail)
        console.print(table)
    else:  # one line each, for whatever reads them
        for check in report.checks:
            sign, _ = _SIGNS[check.level]
            print(f"{sign:7} {check.name}: {printable(check.detail)}.")
    if not report.example:
        return
    legend = Text("\nThe first example: ")
    legend.append("masked", _MASKED).append(", ").append("⟦carries loss⟧", _SUPERVISED).append(".")
    shown = Text()
    for piece in report.example:
        text = printable_lines(piece["text"])
        text = f"⟦{text}⟧" if piece["supervised"] else text
        shown.append(text, _SUPERVISED if piece["supervised"] else _MASKED)
    console.print(legend)
    console.print(shown)

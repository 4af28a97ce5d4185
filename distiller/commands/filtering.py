"""``python -m distiller filter``: from traces to the ones worth learning from, and to a corpus."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from distiller import filters, refining
from distiller.commands.console import CPUS, progress_bars
from distiller.errors import InputError
from distiller.inputs import read_guesses, read_judged, read_problems
from distiller.recipe import DEFAULT_FILTERS, Recipe
from evaluator.commands.console import cell
from evaluator.protocol import first_mistake

_EXAMPLE = '{"filters": [{"name": "answer"}, {"name": "loops", "parameters": {"max_repeats": 5}}]}'
_HELP = f"""Drop the traces that a student should not learn from, and say why.

A trace is a row {{problem_id, sample, completion, finish_reason}}, a problem a row
{{id, problem, answer}}: JSON lines, also .gz or .zst. OUT gets kept.jsonl, dropped.jsonl (each row
with its reason and step) and funnel.json, whose counts sum; nothing where a row cannot be read.

\b
  python -m distiller filter --traces traces.jsonl --problems problems.jsonl --out filtered

Without a recipe the filters are {", ".join(choice.name for choice in DEFAULT_FILTERS)}. A recipe is
a JSON file; here it needs no more than the fields that are to differ, as

\b
  {_EXAMPLE}

Filters: {", ".join(filters.names())}. `python -m distiller filters` lists their
parameters. The same traces can be filtered again with other ones. Where the recipe names a base (a
checkpoint's folder), the corpus is built too.
"""
_ANY = {"teacher": "", "base": "", "student": "", "prompts": {"set": ""}}


def filter_traces(
    *,
    traces_file: Annotated[
        list[Path], typer.Option("--traces", help="File of traces; may be repeated.")
    ],
    problems: Annotated[Path, typer.Option(help="File of the problems that were answered.")],
    out: Annotated[Path, typer.Option(help="Folder; an earlier run's files there are replaced.")],
    recipe: Annotated[Path | None, typer.Option(help="A JSON file of recipe fields.")] = None,
    benchmark: Annotated[
        list[Path] | None,
        typer.Option(help="File of problems that must not be taught; may be repeated."),
    ] = None,
    guesses: Annotated[
        Path | None,
        typer.Option(help="Answers drawn without thinking, for the filter guessable."),
    ] = None,
    judged: Annotated[
        Path | None,
        typer.Option(help="A judge's verdicts (judge-answers), where the rule cannot check."),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = CPUS,
) -> None:
    """Filter traces; the help text is :data:`_HELP`."""
    chosen = read_recipe(recipe)
    prompts = read_problems(problems)
    beside = refining.Beside(
        guesses=read_guesses(guesses) if guesses else {},
        judged=read_judged(judged) if judged else {},
    )
    against = refining.load_benchmarks({path.stem: str(path) for path in benchmark or ()})
    with progress_bars() as bar:
        result = refining.refine(
            traces_file,
            prompts=prompts,
            recipe=chosen,
            benchmarks=against,
            base_model=Path(chosen.base) if chosen.base else None,
            out=out,
            jobs=jobs,
            beside=beside,
            on_progress=lambda done, total: bar("filter", done, total),
        )
    _show(result["funnel"])
    if chosen.decontaminate and not against:
        print("decontamination: no benchmark was given (--benchmark), so nothing was compared.")
    if not chosen.decontaminate:
        print("decontamination: switched off; every score of a student has to say so.")
    if not result["funnel"]["kept"]:
        print("nothing was kept: there is nothing to train on.")
    print(f"corpus: {result['corpus']}" if "corpus" in result else f"kept: {out / refining.KEPT}")


filter_traces.__doc__ = _HELP


def show_filters() -> None:
    """List the filters and their parameters, with defaults and units."""
    table = Table("filter", "parameter", "default", "meaning")
    for name in filters.names():
        rule = filters.get(name)
        table.add_section()
        what = " ".join((rule.__doc__ or "").partition("\n\n")[0].replace("`", "").split())
        table.add_row(name, "", "", what)
        for field, about in rule.model_fields.items():
            default = about.default
            shown = json.dumps(default.model_dump() if hasattr(default, "model_dump") else default)
            table.add_row("", field, cell(shown), cell(about.description or ""))
    Console().print(table)


def read_recipe(path: Path | None) -> Recipe:
    """A recipe of which only some fields are given; raises InputError naming the one at fault."""
    if path is None:
        return Recipe.model_validate(_ANY)
    try:
        fields: Any = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(fields, dict):
            raise InputError(f"recipe: {path.name} must hold an object of recipe fields.")
        return Recipe.model_validate(_ANY | fields)
    except ValidationError as error:
        raise InputError(f"recipe: {first_mistake(error)}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"recipe: {path} cannot be read ({error}).") from error


def _show(funnel: dict[str, Any]) -> None:
    """The funnel as a table: traces in, and after each step."""
    table = Table("step", title=f"{funnel['traces']:,} traces")
    table.add_column("kept", justify="right")
    table.add_column("dropped", justify="right")
    table.add_column("reasons")
    for step in funnel["steps"]:
        reasons = ", ".join(f"{code} {count:,}" for code, count in step["reasons"].items())
        table.add_row(
            cell(step["step"]), f"{step['kept']:,}", f"{step['dropped']:,}", cell(reasons)
        )
    Console().print(table)

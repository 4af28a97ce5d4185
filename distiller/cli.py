"""``python -m distiller``: build the toy models, filter traces, train, serve a worker."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from distiller import preflight as checks
from distiller import refining, traces
from distiller.corpus import Encoder
from distiller.errors import DistillerError, InputError
from distiller.recipe import Recipe
from distiller.stages import FACTORIES
from evaluator import runner
from evaluator.child import serve
from evaluator.errors import EvaluatorError
from evaluator.errors import InputError as EvaluatorInputError
from evaluator.protocol import first_mistake

app = typer.Typer(
    help="Distil a reasoning model: traces, filters, corpus, fine-tuning.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

RecipeFile = Annotated[Path, typer.Argument(help="The recipe, a JSON file.")]
_JOBS = os.cpu_count() or 1
_INTERRUPTED = 130


def main() -> int:
    """Run the command line; every expected failure ends in one sentence and an exit code."""
    try:
        app()
    except (DistillerError, EvaluatorError) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, InputError | EvaluatorInputError) else 1
    except SystemExit as end:  # how the command line library ends, well or not
        code = end.code if isinstance(end.code, int) else 0
        if code == _INTERRUPTED:
            print("interrupted; start it again to go on.", file=sys.stderr)
        return code
    return 0


@app.command()
def toy(
    *,
    out: Annotated[Path, typer.Option(help="Gets the folders base and teacher.")],
    seed: Annotated[int, typer.Option(help="Of weights and training problems.")] = 0,
    exclude: Annotated[
        Path | None, typer.Option(help="JSONL of problems that the teacher must not be taught.")
    ] = None,
) -> None:
    """Build the demonstration's base and teacher from nothing; what is there already is kept."""
    from distiller import toy as models

    texts = [] if exclude is None else [p.problem for p in runner.load_problems(exclude)]
    with _bars() as bar:
        made = models.build(out, seed=seed, exclude=texts, on_progress=bar)
    print(f"base: {made.base}\nteacher: {made.teacher}")


@app.command(name="filter")
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
    jobs: Annotated[int, typer.Option(min=1, help="Grader processes.")] = _JOBS,
) -> None:
    """Decontaminate and filter traces, and build the corpus."""
    chosen = load_recipe(recipe)
    prompts = runner.load_problems(problems)
    drawn = list(traces.read(traces_file, prompts))
    with _bars() as bar:
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


@app.command()
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


@app.command()
def train(
    recipe: RecipeFile,
    *,
    corpus: Annotated[Path, typer.Option(help="Folder made by the filter command.")],
    out: Annotated[Path, typer.Option(help="Gets the student; new, or one to replace.")],
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …")] = "cpu",
) -> None:
    """Fine-tune the recipe's base on a corpus. Interrupt it at any time: it goes on later."""
    from distiller import sft

    chosen = load_recipe(recipe)
    with _bars() as bar:
        trained = sft.train(
            corpus,
            Path(chosen.base),
            chosen.training,
            out,
            resume=out.with_name(f"{out.name}.resume"),
            device=device,
            on_progress=lambda done, total, tokens: bar("train", done, total),
        )
    print(f"student: {trained.checkpoint} ({trained.steps} steps, loss {trained.loss:.4f})")


@app.command(hidden=True)
def stage(spec: Annotated[Path, typer.Argument(help="The stage's spec.json.")]) -> None:
    """Carry out shards for a worker: JSON lines in and out (docs/architecture.md)."""
    raise typer.Exit(serve(spec, FACTORIES))


def load_recipe(path: Path) -> Recipe:
    """Read a recipe from a JSON file; raises InputError naming the field at fault."""
    try:
        return Recipe.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise InputError(f"recipe: {first_mistake(error)}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"recipe: {path} cannot be read ({error}).") from error


@contextmanager
def _bars() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on standard error per title."""
    with Progress(console=Console(stderr=True)) as progress:
        tasks = {}

        def advance(title: str, done: int, total: int) -> None:
            if title not in tasks:
                tasks[title] = progress.add_task(title, total=total)
            progress.update(tasks[title], completed=done, total=total)

        yield advance

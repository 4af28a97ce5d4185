"""``python -m distiller``: build the toy models, filter traces, train, serve a worker."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from distiller.commands import (
    ablate,
    corpus,
    export,
    filtering,
    generate,
    judging,
    merge,
    preflight,
    toy,
    train,
    verify,
)
from distiller.errors import DistillerError, InputError, disk_error
from distiller.stages import FACTORIES
from evaluator.child import serve
from evaluator.errors import EvaluatorError
from evaluator.errors import InputError as EvaluatorInputError
from evaluator.terminal import printable

app = typer.Typer(
    help="Distil a reasoning model: traces, filters, corpus, fine-tuning.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_INTERRUPTED = 130


def main() -> int:
    """Run the command line; every expected failure ends in one sentence and an exit code."""
    try:
        app()
    except (DistillerError, EvaluatorError) as error:
        print(printable(str(error)), file=sys.stderr)
        return 2 if isinstance(error, InputError | EvaluatorInputError) else 1
    except OSError as error:
        if (full := disk_error(error)) is None:
            raise
        print(full, file=sys.stderr)
        return 1
    except SystemExit as end:  # how the command line library ends, well or not
        code = end.code if isinstance(end.code, int) else 0
        if code == _INTERRUPTED:
            print("interrupted; start it again to go on.", file=sys.stderr)
        return code
    return 0


app.command()(toy.toy)
app.command()(generate.generate)
app.command("filter")(filtering.filter_traces)
app.command("filters")(filtering.show_filters)
app.command("judge-answers")(judging.judge_answers)
app.command()(preflight.preflight)
app.command()(corpus.corpus)
app.command()(train.train)
app.command()(verify.verify)
app.command()(merge.merge)
app.command()(ablate.ablate)
app.command()(export.card)
app.command()(export.export)


@app.command(hidden=True)
def stage(spec: Annotated[Path, typer.Argument(help="The stage's spec.json.")]) -> None:
    """Carry out shards for a worker: JSON lines in and out (docs/architecture.md)."""
    raise typer.Exit(serve(spec, FACTORIES))

"""``python -m distiller judge-answers``: a model's verdict where no rule can check an answer."""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from distiller import judging
from distiller.commands.console import CPUS, progress_bars
from distiller.commands.filtering import read_recipe
from distiller.inputs import read_problems
from evaluator import engines


def judge_answers(
    *,
    traces_file: Annotated[
        list[Path], typer.Option("--traces", help="File of traces; may be repeated.")
    ],
    problems: Annotated[Path, typer.Option(help="File of the problems that were answered.")],
    model: Annotated[str, typer.Option(help="The judge: a name (engine openai) or a folder.")],
    out: Annotated[Path, typer.Option(help="JSONL of verdicts; new, or one to go on with.")],
    engine: Annotated[str, typer.Option(help=f"One of: {', '.join(engines.names())}.")] = "openai",
    base_url: Annotated[
        str | None, typer.Option(help="Engine openai: address, as http://127.0.0.1:8000/v1.")
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="A JSON file of recipe fields.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Grader processes.")] = CPUS,
) -> None:
    """Ask a model about the answers that the recipe's rule cannot check, and only about those.

    The judge sees the reference answer. Its verdicts (correct, wrong, unsure) stand in a file of
    their own; `filter --judged FILE` shows them beside the rule's, and uses them where the filter
    answer says `"unchecked": "judge"`. Start it again to go on; nothing is asked twice.
    """
    chosen = read_recipe(recipe)
    prompts = read_problems(problems)
    with (
        closing(engines.create(judging.settings(engine, model, base_url))) as source,
        tempfile.TemporaryDirectory(dir=out.parent) as spool,
        progress_bars() as bar,
    ):
        counts = judging.judge(
            traces_file,
            prompts=prompts,
            recipe=chosen,
            engine=source,
            out=out,
            spool=Path(spool),
            jobs=jobs,
            on_progress=lambda done, total: bar("judge", done, total),
        )
    print(f"{out}: {judging.describe(counts)}")

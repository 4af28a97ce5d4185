"""``python -m distiller corpus``: from kept traces and chats to token ids with a loss mask."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distiller import corpus as corpora
from distiller import refining
from distiller.checks import checks_of_corpus, require_passed
from distiller.commands.console import RecipeFile, load_recipe, progress_bars
from distiller.kept import read_kept
from evaluator.terminal import printable


def corpus(
    recipe: RecipeFile,
    *,
    traces: Annotated[
        list[Path], typer.Option(help="kept.jsonl of the filter command; may be repeated.")
    ],
    out: Annotated[Path, typer.Option(help="Gets the corpus; new, or one to replace.")],
    benchmark: Annotated[
        list[Path] | None,
        typer.Option(help="JSONL that mixed-in chats must not hold; may be repeated."),
    ] = None,
) -> None:
    """Build a corpus again from kept traces: with other chats, proportions, lengths or template.

    The recipe's section corpus says what is mixed in, and how too long examples are treated.
    """
    chosen = load_recipe(recipe)
    encoder = corpora.Encoder(Path(chosen.base), chosen)
    with progress_bars() as bar:
        corpora.build(
            read_kept(traces, {}),
            encoder=encoder,
            recipe=chosen,
            out=out,
            benchmarks=refining.load_benchmarks({path.stem: str(path) for path in benchmark or ()}),
            on_progress=lambda done, total: bar("encode", done, total),
        )
    examples, manifest = corpora.read(out)
    require_passed(checks_of_corpus(examples, encoder, chosen))
    for line in corpora.summary(manifest):
        print(printable(line))
    print(
        f"corpus: {out}: {manifest['examples']} examples, {manifest['tokens']} tokens, "
        f"{manifest['supervised_share']:.1%} carry loss, the longest has "
        f"{manifest['longest_tokens']}; manifest {corpora.manifest_hash(manifest)}"
    )

"""``python -m distiller merge``: the mean of two checkpoints of one base."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distiller import merge as merging
from distiller.commands.console import progress_bars


def merge(
    first: Annotated[Path, typer.Argument(help="A checkpoint, as a long-thinking student.")],
    second: Annotated[Path, typer.Argument(help="Another of the same base, as a short one.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder of the merged checkpoint; new.")],
    weight: Annotated[
        float, typer.Option(help="Share of the first, from 0 to 1; the second has the rest.")
    ] = 0.5,
) -> None:
    """Average the weights of two checkpoints of one base (Kimi k1.5's long2short)."""
    with progress_bars() as bar:
        made = merging.merge(
            first, second, out, weight=weight,
            on_progress=lambda done, total: bar("merge", done, total),
        )  # fmt: skip
    print(f"merged: {out}\ncontent hash: {made.content_hash}")

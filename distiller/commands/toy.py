"""``python -m distiller toy``: the demonstration's models, from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distiller.commands.console import progress_bars
from evaluator import runner


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
    with progress_bars() as bar:
        made = models.build(out, seed=seed, exclude=texts, on_progress=bar)
    print(f"base: {made.base}\nteacher: {made.teacher}")

"""``python -m distiller train``: fine-tune a base on a corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distiller.commands.console import RecipeFile, load_recipe, progress_bars


def train(
    recipe: RecipeFile,
    *,
    corpus: Annotated[Path, typer.Option(help="Folder made by the filter command.")],
    out: Annotated[Path, typer.Option(help="Gets the student; new, or one to replace.")],
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …")] = "cpu",
    processes: Annotated[
        int | None, typer.Option(min=1, help="Share the work; for cuda one per GPU unless given.")
    ] = None,
) -> None:
    """Fine-tune the recipe's base on a corpus. Interrupt it at any time: it goes on later."""
    from distiller import sft

    chosen = load_recipe(recipe)
    with progress_bars() as bar:
        trained = sft.train(
            corpus,
            Path(chosen.base),
            chosen.training,
            out,
            resume=out.with_name(f"{out.name}.resume"),
            device=device,
            processes=processes,
            on_progress=lambda done, total, tokens: bar("train", done, total),
        )
    print(f"student: {trained.checkpoint} ({trained.steps} steps, loss {trained.loss:.4f})")

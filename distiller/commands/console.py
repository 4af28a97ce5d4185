"""What the commands share: reading a recipe, progress bars."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import Progress

from distiller.errors import InputError
from distiller.recipe import Recipe
from evaluator.protocol import first_mistake

RecipeFile = Annotated[Path, typer.Argument(help="The recipe, a JSON file.")]
CPUS = os.cpu_count() or 1


def load_recipe(path: Path) -> Recipe:
    """Read a recipe from a JSON file; raises InputError naming the field at fault."""
    try:
        return Recipe.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise InputError(f"recipe: {first_mistake(error)}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"recipe: {path} cannot be read ({error}).") from error


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on standard error per title, fed with title, done and total."""
    with Progress(console=Console(stderr=True)) as progress:
        tasks = {}

        def advance(title: str, done: int, total: int) -> None:
            if title not in tasks:
                tasks[title] = progress.add_task(title, total=total)
            progress.update(tasks[title], completed=done, total=total)

        yield advance

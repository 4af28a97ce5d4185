"""What several commands take, and the server that they speak to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from webapp.client import settings
from webapp.client.api import Retort
from webapp.client.errors import ClientError

RunKey = Annotated[int, typer.Argument(metavar="RUN", help="The run's number.", min=1)]
Project = Annotated[int | None, typer.Option(help="Number of the project; see retort whoami.")]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]
Recipe = Annotated[Path, typer.Argument(help="The recipe, a YAML file.", dir_okay=False)]
Priority = Annotated[int, typer.Option(help="0 is usual; only administrators may raise it.")]
Checkpoints = Annotated[list[str], typer.Option(help="A name; may be given again.")]
Benchmarks = Annotated[list[str], typer.Option(help="A name; may be given again.")]
Protocol = Annotated[str, typer.Option(help="A preset: quick, r1, …")]
Samples = Annotated[int | None, typer.Option(help="n; without it the preset's.")]
MaxTokens = Annotated[int | None, typer.Option(help="Of the longest answer.")]
Engine = Annotated[str, typer.Option(help="transformers or vllm")]
Devices = Annotated[int, typer.Option(help="GPUs for each model.", min=1)]
StageDevices = Annotated[int, typer.Option(help="GPUs of that stage.", min=1)]


def connected() -> Retort:
    """The server and token that login kept, or the environment names. Raises ClientError."""
    kept = settings.load()
    return Retort(kept.server, kept.token)


def text_of(path: Path) -> str:
    """A recipe's text. Raises ClientError."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ClientError(f"recipe: {path} cannot be read ({error}).") from None


def group(words: str) -> typer.Typer:
    """A group of commands."""
    return typer.Typer(help=words, no_args_is_help=True, rich_markup_mode=None)

"""``python -m distiller verify``: is a folder a whole and safe checkpoint?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from evaluator.terminal import json_line, printable


def verify(
    folder: Annotated[Path, typer.Argument(help="A checkpoint: config, tokenizer, safetensors.")],
    memory_bytes: Annotated[
        int | None, typer.Option(min=1, help="Memory that looking at it may take.")
    ] = None,
    *,
    unhashed: Annotated[
        bool, typer.Option("--unhashed", help="Leave the content hash out, which reads every file.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check every file and hold every tensor against the config, without loading the weights.

    Of quantised weights only the files are checked, and it says so.
    """
    from distiller import verifying

    if memory_bytes is not None:
        verifying.limit_memory(memory_bytes)
    info = verifying.verify(folder, hashed=not unhashed)
    if as_json:
        print(json_line(asdict(info)))
        return
    print(printable(f"{info.architecture}, {info.parameters:,} parameters in {info.dtype}"))
    if info.content_hash:
        print(f"content hash: {info.content_hash}")
    if sentence := verifying.unchecked(folder):
        print(f"not checked: {printable(sentence)}")

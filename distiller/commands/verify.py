"""``python -m distiller verify``: is a folder a whole and safe checkpoint?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def verify(
    folder: Annotated[Path, typer.Argument(help="A checkpoint: config, tokenizer, safetensors.")],
) -> None:
    """Check every file and hold every tensor against the config, without loading the weights.

    Of quantised weights only the files are checked, and it says so.
    """
    from distiller import verifying

    info = verifying.verify(folder)
    print(f"{info.architecture}, {info.parameters:,} parameters in {info.dtype}")
    print(f"content hash: {info.content_hash}")
    if sentence := verifying.unchecked(folder):
        print(f"not checked: {sentence}")

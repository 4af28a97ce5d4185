"""The secret key of an installation that names none: made once, kept in var/secret_key."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path


def secret_key(var: Path) -> str:
    """Return the key in ``var/secret_key`` (mode 600), making it first where there is none.

    Linking a finished file into place lets two processes that start together agree on one key.
    """
    path = var / "secret_key"
    if not path.exists():
        var.mkdir(parents=True, exist_ok=True)
        part = var / f".secret_key.{os.getpid()}"
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(50))
        try:
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(part)
        finally:
            part.unlink()
    return path.read_text()

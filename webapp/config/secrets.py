"""The secret key of an installation that names none, and what else must never be logged."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

_SECRET_NAME = re.compile("KEY|SECRET|PASSWORD|TOKEN")


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


def named_in(environment: Mapping[str, str]) -> list[str]:
    """What variables hold whose names say that it is secret, and the passwords of addresses."""
    found = []
    for name, value in environment.items():
        if _SECRET_NAME.search(name):
            found += value.split(",") if name.endswith("S") else [value]
        if "://" in value:
            try:
                password = urlsplit(value).password
            except ValueError:
                continue  # no address after all
            found += [password, unquote(password)] if password else []
    return found

"""Which server, and the token: a file that only its owner reads, or the environment."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from webapp.client.errors import ClientError

SERVER = "http://127.0.0.1:8000"
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the server is, and the token that it is sent."""

    server: str
    token: str


def settings_file() -> Path:
    """``retort/login.json`` below XDG_CONFIG_HOME, or ``~/.config``."""
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "retort" / "login.json"


def checked_server(address: str) -> str:
    """The address without a slash at its end. Raises ClientError where a token may not go there."""
    parts = urlsplit(address.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ClientError("server: give an address such as https://retort.example.org.")
    if parts.username is not None:
        raise ClientError("server: leave out user and password.")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise ClientError("server: use https; over http anybody on the way could read the token.")
    return address.strip().rstrip("/")


def load() -> Settings:
    """RETORT_SERVER and RETORT_TOKEN, else what ``login`` kept. Raises ClientError."""
    kept: dict[str, str] = {}
    try:
        kept = json.loads(settings_file().read_text(encoding="utf-8"))
    except FileNotFoundError:
        pass
    except (OSError, ValueError):
        raise ClientError(f"{settings_file()}: cannot be read; run retort login again.") from None
    token = os.environ.get("RETORT_TOKEN") or kept.get("token", "")
    if not token:
        raise ClientError("No token is known; run retort login, or set RETORT_TOKEN.")
    server = os.environ.get("RETORT_SERVER") or kept.get("server") or SERVER
    return Settings(checked_server(server), token)


def save(settings: Settings) -> Path:
    """Keep it where only its owner reads it (mode 0600), in place of what was kept."""
    path = settings_file()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump({"server": settings.server, "token": settings.token}, file)
    part.replace(path)
    return path


def forget() -> bool:
    """Take away what ``login`` kept; whether there was anything."""
    try:
        settings_file().unlink()
    except FileNotFoundError:
        return False
    return True

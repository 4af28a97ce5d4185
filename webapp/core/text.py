"""Text as PostgreSQL can keep it: a model may write NUL or half a surrogate pair."""

from __future__ import annotations

from typing import Any


def storable(text: str) -> str:
    """``text`` with what neither ``text`` nor ``jsonb`` holds replaced by a mark."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def storable_json(value: Any) -> Any:
    """``value`` (plain JSON values) with every string in it storable."""
    match value:
        case str():
            return storable(value)
        case dict():
            return {storable(key): storable_json(each) for key, each in value.items()}
        case list() | tuple():
            return [storable_json(each) for each in value]
    return value

"""Words for a terminal: what a file, a model or a stranger wrote must not steer it."""

from __future__ import annotations

import json
from typing import Any


def printable(text: str) -> str:
    """``text`` with every character escaped that could end a line or steer a terminal."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def printable_lines(text: str) -> str:
    """A text of several lines for a terminal: :func:`printable`, but for the lines' ends."""
    return "\n".join(printable(line) for line in text.split("\n"))


def json_line(value: Any, indent: int | None = None) -> str:
    """``value`` as a line of JSON (indented: as lines) that steers no terminal.

    It is spelt in ASCII where a character in it could: JSON itself leaves the controls
    beyond ASCII and the marks of direction as they are.
    """
    line = json.dumps(value, ensure_ascii=False, indent=indent)
    if all(part.isprintable() for part in line.split("\n")):
        return line
    return json.dumps(value, indent=indent).replace("\x7f", "\\u007f")

"""Every promise of docs/security.md says what shows it, and that is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
# A file below tests/, with the name of one of its tests or without.
SHOWN = re.compile(r"`(tests/[\w./-]+?\w)(?:::(\w+))?`")
HEAD = "| promise | means | shown by |"


@cache
def functions_of(file: str) -> frozenset[str]:
    """The names of the functions of a file of tests."""
    found = ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))
    return frozenset(node.name for node in found if isinstance(node, ast.FunctionDef))


def promises() -> list[list[str]]:
    """The rows of the tables of promises, by cell."""
    rows, inside = [], False
    for line in PAGE.splitlines():
        inside = line == HEAD or (inside and line.startswith("|"))
        if inside and line != HEAD and not line.startswith("|--"):
            rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows


def test_every_promise_names_what_shows_it() -> None:
    rows = promises()
    assert len(rows) > 50
    assert "| promise | means |\n" not in PAGE
    assert [row[0] for row in rows if len(row) != 3 or not SHOWN.search(row[2])] == []


def test_what_is_named_is_there() -> None:
    named = SHOWN.findall(PAGE)
    assert len(named) > 100
    assert [file for file, _ in named if not (ROOT / file).exists()] == []
    missing = [f"{file}::{name}" for file, name in named if name and name not in functions_of(file)]
    assert missing == []

"""Migrations with data: back to nothing and forward again, and from earlier schemas to this one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.webapp.installations import Installation


def walk(installation: Installation, *how: str) -> dict[str, Any]:
    done = installation.python("-m", "tests.webapp.walk_migrations", *how)
    assert done.returncode == 0, done.stderr[-3000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_every_migration_can_be_undone_with_rows_in_every_table(
    new: Callable[[], Installation],
) -> None:
    installation = new()
    assert installation.manage("migrate", "--verbosity", "0").returncode == 0
    schema = installation.schema()
    told = walk(installation, "back")
    assert told["left"] == []
    assert told["steps"] >= 16
    assert installation.schema() == schema


@pytest.mark.parametrize("start", ["first", "recent"])
def test_rows_of_an_earlier_schema_survive(new: Callable[[], Installation], start: str) -> None:
    told = walk(new(), "from", start)
    assert told["lost"] == []
    assert told["rows"] >= 28

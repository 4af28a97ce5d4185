"""What tests of the webapp may use."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from evaluator import report_pdf, signing
from tests.webapp.installations import Installation


@pytest.fixture
def page(user: Any) -> Client:
    """A browser in which ``user`` is signed in."""
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def quick_reports(settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file store and a signing key of the test's own, and no PDF, which takes its time."""
    settings.MEDIA_ROOT = tmp_path / "files"
    monkeypatch.setenv(signing.VARIABLE, str(tmp_path / "key.pem"))
    monkeypatch.setattr(report_pdf, "available", lambda: False)


@pytest.fixture
def new(process_environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[[], Any]]:
    """Make an empty installation."""
    made: list[str] = []

    def make() -> Installation:
        name = f"restored_{uuid.uuid4().hex}"
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
        made.append(name)
        return Installation(name, tmp_path / name, process_environment)

    yield make
    for name in made:
        with connection.cursor() as cursor:
            cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")

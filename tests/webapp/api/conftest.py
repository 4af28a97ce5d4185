"""What tests of the API use: a client that sends a token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.signals import request_finished, request_started
from django.db import close_old_connections
from django.test import Client

from webapp.api import tokens


@pytest.fixture(autouse=True)
def _store(settings: Any, tmp_path: Any) -> None:
    settings.MEDIA_ROOT = tmp_path / "files"


@pytest.fixture
def by_token(db: None) -> Callable[..., Client]:
    """A client that speaks by a new token of a person."""

    def make(person: Any, scope: str = "write", **values: Any) -> Client:
        _, secret = tokens.make(person, name="a test", scope=scope, **values)
        return Client(headers={"Authorization": f"Bearer {secret}"})

    return make


@pytest.fixture
def in_one_transaction(db: None) -> Iterator[None]:
    """Requests of this thread leave the connection, and so the test's transaction, open."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)

"""What tests of the API use: a client that sends a token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
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

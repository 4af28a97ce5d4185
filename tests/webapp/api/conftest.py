"""What tests of the API use: a client that sends a token."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.core.signals import request_finished, request_started
from django.db import close_old_connections
from django.test import Client

from tests.webapp.api.rows import World, make_world
from webapp.api import tokens
from webapp.client import Retort, cli, options
from webapp.client.settings import Settings, save
from webapp.config.wsgi import application
from webapp.projects.models import Project

SERVER = "http://127.0.0.1:1"


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


# --- the retort command


@pytest.fixture
def world(user: Any) -> World:
    return make_world(user, Project.objects.order_by("pk")[0], "own")


@pytest.fixture
def secret(world: World) -> str:
    return tokens.make(world.owner, name="laptop", scope="write")[1]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("RETORT_TOKEN", raising=False)


@pytest.fixture
def signed_in(secret: str, home: None, monkeypatch: Any, in_one_transaction: None) -> None:
    """The command speaks to the server in this very thread, and so in the test's transaction."""
    transport = httpx.WSGITransport(application)
    monkeypatch.setattr(options, "Retort", partial(Retort, transport=transport))
    save(Settings(SERVER, secret))


@pytest.fixture
def signed_in_there(secret: str, home: None, live_server: Any, monkeypatch: Any) -> Settings:
    """The command speaks to a server that listens."""
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{secret}\n"))
    assert cli.main(["login", "--server", live_server.url, "--token-stdin"]) == 0
    return Settings(live_server.url, secret)

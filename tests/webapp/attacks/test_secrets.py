"""Planted secrets: looked for in every row, on every answer and in every line that is logged."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from tests.webapp import access_world
from tests.webapp.access_table import ACTS
from tests.webapp.access_world import ADMINISTRATOR, OWNER, World, contents, undone
from tests.webapp.test_access import body_of
from webapp.api import tokens
from webapp.endpoints import services as endpoints
from webapp.notifications import services as notifications

pytestmark = pytest.mark.django_db

PLANTED = "planted-7f3a91c0-secret"


@pytest.fixture
def world(settings: Any, tmp_path: Path) -> World:
    settings.MEDIA_ROOT = tmp_path / "files"
    return access_world.build()


def test_no_row_answer_or_log_line_holds_a_secret(
    world: World, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    owner = world.people[OWNER]
    caplog.set_level(logging.DEBUG)
    key = f"{PLANTED}-endpoint"
    made = endpoints.register(
        owner=owner, project=world.project, name="with-a-key", model="m", key=key,
        base_url="http://127.0.0.1:9/v1",
    )  # fmt: skip
    assert endpoints.key_of(made) == key
    world.keys["endpoint"] = made.pk
    _, token = tokens.make(owner, name="a program's", scope="read")
    hook = notifications.set_preference(
        owner, email="", webhook_url="http://127.0.0.1:9/hook", on_finished=True, on_failed=True,
        on_cancelled=False,
    )  # fmt: skip
    assert hook
    settings.RETORT_METRICS_TOKEN = f"{PLANTED}-metrics"
    secrets = (key, token, hook, settings.RETORT_METRICS_TOKEN, settings.SECRET_KEY)
    rows = "\n".join(row for found in contents().values() for row in found)
    assert [secret for secret in secrets if secret in rows] == []
    said = []
    for act in ACTS:
        for role in (OWNER, ADMINISTRATOR):
            client = world.client(role)
            with undone():
                answer = act.send(client, world)
                told = body_of(answer).decode(errors="replace") + str(answer.headers)
            said += [f"{act} by {role}" for secret in secrets if secret in told]
    assert said == []
    assert [secret for secret in secrets if secret in caplog.text] == []

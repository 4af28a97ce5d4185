"""Logs: a line is one line and says what it is about by ids, whatever the names hold."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st

from webapp.config import secrets
from webapp.core import logs

SECRET = 'mum\'s "word"\\é'
HOSTILE = st.one_of(
    st.text(),
    st.text(alphabet="\n\r\x00\x1b\x85\u2028\u2029\x9b\u202e{}\"'\\ x=|"),
    st.just('x"}\n{"level": "error", "message": "forged'),
)


class Lines:
    """A logger of its own whose lines are kept."""

    def __init__(self, formatter: logging.Formatter) -> None:
        self._stream = io.StringIO()
        handler = logging.StreamHandler(self._stream)
        handler.setFormatter(formatter)
        handler.addFilter(logs.Ids())
        self.logger = logging.Logger("some.module")
        self.logger.addHandler(handler)

    def text(self) -> str:
        return self._stream.getvalue()

    def only(self) -> dict[str, Any]:
        [line] = self.text().splitlines()  # which splits at every line end that Unicode has
        return dict(json.loads(line))


def fail(text: str) -> None:
    raise ValueError(text)


@given(HOSTILE, HOSTILE)
def test_a_json_line_is_one_line_of_plain_text_that_says_what_was_said(
    name: str, other: str
) -> None:
    lines = Lines(logs.JsonFormatter())
    with logs.about(run=3, shard=4):
        try:
            fail(other)
        except ValueError:
            lines.logger.warning("problem %s", name, exc_info=True, extra={"note": other})
    assert lines.text().removesuffix("\n").isascii()
    assert all(each.isprintable() for each in lines.text().removesuffix("\n"))
    line = lines.only()
    assert (line["level"], line["logger"], line["message"]) == (
        "warning", "some.module", f"problem {name}",
    )  # fmt: skip
    assert (line["run"], line["shard"], line["note"]) == (3, 4, other)
    assert line["exception"].startswith("Traceback")
    assert list(line)[:3] == ["time", "level", "logger"]


@given(HOSTILE, HOSTILE)
def test_a_line_for_people_cannot_be_forged(name: str, other: str) -> None:
    lines = Lines(logs.TextFormatter())
    with logs.about(run=3):
        try:
            fail(other)
        except ValueError:
            lines.logger.warning("problem %s", name, exc_info=True, extra={"note": other})
    head, *trace = lines.text().removesuffix("\n").split("\n")
    assert "WARNING some.module: problem " in head
    assert "run=3" in head
    assert all(line.startswith("    | ") for line in trace)
    assert all(each.isprintable() for line in (head, *trace) for each in line)


@pytest.mark.parametrize("formatter", [logs.JsonFormatter, logs.TextFormatter])
def test_a_planted_secret_is_struck_out(formatter: Any) -> None:
    lines = Lines(formatter([SECRET, None, "short"]))
    try:
        fail(f"cannot sign in with {SECRET}")
    except ValueError:
        lines.logger.warning("key %s", SECRET, exc_info=True, extra={"note": [SECRET, "short"]})
    assert "word" not in lines.text()
    assert lines.text().count(logs.STRUCK_OUT) >= 2
    assert "short" in lines.text()


def test_the_environments_secrets_are_known() -> None:
    environment = {
        "OPENAI_API_KEY": "sk-1234567890", "RETORT_ENCRYPTION_KEYS": "one-of-them,another-one",
        "DATABASE_URL": "postgres://me:pass%20word@host/db", "HOME": "/root",
        "CELERY_BROKER_URL": "redis://:another-pass@host/0", "ODD": "http://[broken",
    }  # fmt: skip
    assert set(secrets.named_in(environment)) == {
        "sk-1234567890", "one-of-them", "another-one", "pass%20word", "pass word", "another-pass",
    }  # fmt: skip


def test_the_products_own_log_strikes_out_its_secrets() -> None:
    """A process with a real configuration, whose log is asked for each of its secrets."""
    planted = {
        "SECRET_KEY": "the-secret-key-of-this-test", "RETORT_METRICS_TOKEN": "the-token-of-metrics",
        "DATABASE_URL": "postgres://me:the-password@127.0.0.1:1/none",
    }  # fmt: skip
    script = (
        "import django, logging, os; django.setup(); "
        "logging.getLogger('x').error('%s', dict(os.environ))"
    )
    for form in ("json", "text"):
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True,
            env={
                "PATH": os.environ["PATH"], "DJANGO_SETTINGS_MODULE": "webapp.config.settings",
                "RETORT_VAR": os.environ["RETORT_TEST_VAR"], "RETORT_LOG_FORMAT": form, **planted,
            },
        )  # fmt: skip
        [line] = done.stderr.splitlines()
        assert line.startswith("{") == (form == "json")
        for secret in (*planted.values(), "the-password"):
            assert secret not in line


def test_ids_go_with_the_work_and_end_with_it() -> None:
    lines = Lines(logs.JsonFormatter())
    with logs.about(run=1, stage=2):
        with logs.about(shard=3):
            thread = threading.Thread(target=logs.carried(lambda: lines.logger.info("inside")))
        thread.start()
        thread.join()
        lines.logger.info("outside", extra={"run": 9})
    lines.logger.info("after")
    inside, outside, after = map(json.loads, lines.text().splitlines())
    assert (inside["run"], inside["stage"], inside["shard"]) == (1, 2, 3)
    assert (outside["run"], outside["stage"]) == (9, 2)
    assert "shard" not in outside
    assert "run" not in after
    assert after["host"]


@pytest.fixture
def caught() -> Iterator[Lines]:
    """The lines that requests leave, in the product's form."""
    lines = Lines(logs.JsonFormatter())
    logger = logging.getLogger("webapp.monitoring.requests")
    [handler] = lines.logger.handlers
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


def test_a_request_leaves_a_line_with_its_id_and_the_persons(user: Any, caught: Lines) -> None:
    client = Client()
    client.force_login(user)
    response = client.get(reverse("runs:index"), {"q": "ada"})
    line = caught.only()
    assert response["x-request-id"] == line["request_id"]
    assert (line["view"], line["status"], line["user"]) == ("runs:index", 200, user.pk)
    assert "ada" not in json.dumps(line)


@pytest.mark.parametrize(
    ("given", "taken"), [("abc-1", True), ("a\tb", False), ("x" * 65, False), ('a"}', False)]
)
def test_a_proxys_request_id_is_taken_where_it_is_one(
    user: Any, caught: Lines, given: str, taken: bool
) -> None:
    response = Client(headers={"x-request-id": given}).get(reverse("core:login"))
    line = caught.only()
    assert (response["x-request-id"] == given) == taken == (line["request_id"] == given)
    assert "user" not in line


def test_hostile_addresses_leave_one_line(db: None, caught: Lines) -> None:
    Client().get("/runs/%0a%7b%22level%22/%e2%80%a8x%1b[2J")
    assert caught.only()["view"] == "none"

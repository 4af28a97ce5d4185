"""What workers and children log carries the ids of the shard it is about, and no secret."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from webapp.core import logs
from webapp.runs import stages
from webapp.runs.models import LedgerEntry, Run, Stage
from workers.tasks.stages import do_work

KEY = "sk-planted-in-the-environment"


@pytest.fixture
def lines() -> Iterator[Callable[[str], list[dict[str, Any]]]]:
    """Give the lines so far of the loggers of a name, as the product writes them."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonFormatter())
    handler.addFilter(logs.Ids())
    root = logging.getLogger()
    root.addHandler(handler)

    def read(name: str) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in stream.getvalue().splitlines()]
        return [line for line in found if line["logger"].startswith(name)]

    yield read
    root.removeHandler(handler)


def test_lines_of_a_shards_work_carry_its_ids(
    run: Run, evaluate: Stage, child: Callable[[str], None],
    lines: Callable[[str], list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(stages, "secrets", lambda stage: {"RETORT_ENDPOINT_KEY": KEY})
    child("well")
    do_work("me", ["gpu"])
    leases = {
        (entry.shard_id, logs.short_lease(entry.lease_token.hex))
        for entry in LedgerEntry.objects.all()
    }
    assert len(leases) == 3
    for name, message in (("child", "environment: "), ("workers.metering", "shard finished")):
        said = [line for line in lines(name) if line["message"].startswith(message)]
        assert {(line["shard"], line["lease"]) for line in said} == leases
        assert {(line["run"], line["stage"]) for line in said} == {(run.pk, evaluate.pk)}
    assert [line["message"] for line in lines("child") if line["message"].startswith("key:")] == [
        f"key: {logs.STRUCK_OUT}"
    ] * 3
    assert "planted" not in json.dumps(lines(""))


def test_the_log_that_a_failed_run_shows_has_no_secret_either(
    run: Run, evaluate: Stage, child: Callable[[str], None], monkeypatch: pytest.MonkeyPatch,
    lines: Callable[[str], list[dict[str, Any]]],
) -> None:  # fmt: skip
    monkeypatch.setattr(stages, "secrets", lambda stage: {"RETORT_ENDPOINT_KEY": KEY})
    child("blabs")
    do_work("me", ["gpu"])
    evaluate.refresh_from_db()
    assert evaluate.error == f"{logs.STRUCK_OUT} was refused"
    assert logs.STRUCK_OUT in evaluate.log_tail
    assert "planted" not in evaluate.log_tail + json.dumps(lines(""))
    [failure] = lines("workers.metering")
    assert (failure["level"], failure["cause"]) == ("warning", "permanent")
    assert failure["run"] == run.pk

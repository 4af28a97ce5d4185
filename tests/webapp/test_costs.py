"""The pages of costs: what the ledger says, by run, person and student, and as CSV."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

import pytest
from django.test import Client

from tests.distiller.samples import recipe
from tests.webapp import samples
from tests.webapp.test_ledger import began, launch, spend
from webapp.runs import leases, stages
from webapp.runs.ledger import Usage
from webapp.runs.models import Run

ADDRESS = "/costs/"


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "ring", lambda stage, times: None)


@pytest.fixture
def scene(user: Any, admin: Any) -> Any:
    """Two people's runs, one of them a distillation with a student; names that are no formulas."""
    config = recipe().model_dump(mode="json")
    run = samples.make_run(user, '=HYPERLINK("x")', Run.Kind.DISTILLATION, config=config)
    student = samples.make_checkpoint(user, "<b>student</b>", produced_by=run)
    for kind, seconds in (("generate", 3600), ("train", 7200)):
        spend(run, kind, seconds)
    spend(samples.make_run(admin, "other", Run.Kind.EVALUATION), "evaluate", 1800)
    return student


def text_of(response: Any) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", response.content.decode()))


def rows_of(page: Client, **query: str) -> list[dict[str, str]]:
    response = page.get(ADDRESS, {"csv": "1", **query})
    assert response["content-type"].startswith("text/csv")
    return list(csv.DictReader(io.StringIO(response.content.decode())))


@pytest.mark.parametrize("by", ["run", "person", "student", "kind"])
def test_every_grouping_shows_and_sums_the_same_ledger(
    scene: Any, page: Client, by: str, settings: Any
) -> None:
    settings.RETORT_DEVICE_HOUR_PRICE = 2.0
    shown = text_of(page.get(ADDRESS, {"by": by}))
    rows = rows_of(page, by=by)
    hours = sum(float(row["device hours"]) for row in rows)
    expected = 3.0 if by == "student" else 3.5
    assert hours == pytest.approx(expected, abs=0.02)
    assert sum(float(row["money"]) for row in rows) == pytest.approx(2 * hours, abs=1e-4)
    assert {row["currency"] for row in rows} == {"USD"}
    wholes = {"run": "3 h 00 min", "person": "3 h 00 min", "student": "3 h 00 min"}
    assert wholes.get(by, "2 h 00 min") in shown
    assert "<b>student" not in page.get(ADDRESS, {"by": by}).content.decode()


def test_a_name_is_no_formula_and_no_price_is_no_money(scene: Any, page: Client) -> None:
    first, second = rows_of(page)
    assert first["run"] == '\'=HYPERLINK("x")'
    assert (first["money"], first["endpoint money"], second["money"]) == ("", "", "")
    shown = text_of(page.get(ADDRESS))
    assert "Devices have no price here (RETORT_DEVICE_HOUR_PRICE)." in shown
    assert "USD" not in shown


@pytest.mark.parametrize(
    ("query", "some"),
    [
        ({}, True),
        ({"since": "2001-01-01", "until": "2001-02-01"}, False),
        ({"until": "2001-01-01", "since": "2199-02-01"}, True),  # the wrong way round
        ({"since": "yesterday", "until": "9999-99-99", "by": "<x>", "page": "99"}, True),
    ],
)
def test_a_period_is_of_days_and_odd_ones_are_the_usual(
    scene: Any, page: Client, query: dict[str, str], some: bool
) -> None:
    response = page.get(ADDRESS, query)
    assert response.status_code == 200
    assert ("Nothing ended in this period" not in text_of(response)) == some


def test_the_page_needs_few_queries_however_many_runs(
    scene: Any, page: Client, admin: Any, django_assert_max_num_queries: Any
) -> None:
    for number in range(5):
        spend(samples.make_run(admin, f"run {number}", Run.Kind.EVALUATION), "evaluate", 5)
    for by in ("run", "person", "student", "kind"):
        with django_assert_max_num_queries(6):
            page.get(ADDRESS, {"by": by})


def test_a_runs_page_and_its_students_tell_their_costs(scene: Any, page: Client) -> None:
    run = text_of(page.get(scene.produced_by.get_absolute_url()))
    assert re.search(r"Stage Device time .* generate 1 h 00 min .* train 2 h 00 min", run)
    assert "Together 3 h 00 min" in run
    student = text_of(page.get(scene.get_absolute_url()))
    assert re.search(r"What it took .* Traces .* 1 h 00 min .* Training 2 h 00 min", student)
    bare = samples.make_run(scene.owner, "bare", Run.Kind.EVALUATION)
    assert "Device time" not in text_of(page.get(bare.get_absolute_url()))


def test_work_that_was_lost_is_said(user: Any, page: Client, settings: Any) -> None:
    settings.RETORT_RETRY_SECONDS = 0.0
    run = launch(user, shards=1, stage_count=1)
    for seconds in (100, 300):
        claim = leases.claim("me/1")
        assert claim is not None
        began(claim, seconds)
        leases.record_usage(claim, Usage(devices=1, cpu_seconds=seconds))
        if seconds == 100:
            leases.fail_shard(claim, "it broke", transient=True)
        else:
            leases.finish_shard(claim, {})
    shown = text_of(page.get(ADDRESS))
    assert "25 % 1 of 2 leases unfinished" in shown
    [row] = rows_of(page)
    assert (row["run"], row["unfinished leases"]) == (run.name, "1")
    assert float(row["lost cpu hours"]) == pytest.approx(100 / 3600, abs=1e-5)

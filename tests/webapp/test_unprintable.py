"""A completion may hold NUL or half a surrogate pair: every page and report still answers."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from evaluator.records import Outcome
from tests.webapp.samples import (
    FUNNEL,
    PREFLIGHT,
    arithmetic,
    make_benchmark,
    make_checkpoint,
    make_evaluation,
    make_run,
    make_stage,
)
from webapp.leaderboard import desk, reports
from webapp.leaderboard.models import Report
from webapp.runs import files
from webapp.runs.models import Evaluation, Run, State

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("quick_reports")]
PROBLEMS = arithmetic(2)
BAD = "half \ud800 of a pair, and \0"
MENDED = "half ? of a pair, and \N{REPLACEMENT CHARACTER}"


def draw(rng: Any, problem: Any, sample: int) -> Any:
    return f"<think>\n{BAD}\n</think>\n{BAD}", Outcome.WRONG, "x", "another text"


@pytest.fixture
def both(user: Any) -> list[Evaluation]:
    benchmark = make_benchmark(PROBLEMS)
    return [
        make_evaluation(user, make_checkpoint(user, name), benchmark, PROBLEMS, draw=draw)
        for name in ("one", "two")
    ]


def test_the_pages_of_a_sample(page: Client, both: list[Evaluation]) -> None:
    one, two = both
    problem = one.benchmark.problems.all()[0]
    sample = [one.pk, problem.pk, 0]
    queries = f"?e={one.pk},{two.pk}"
    for address in (
        reverse("leaderboard:problem", args=sample[:2]),
        reverse("leaderboard:raw", args=sample),
        reverse("leaderboard:raw", args=sample) + "?as=json",
        reverse("leaderboard:part", args=[*sample, "thinking"]),
        reverse("leaderboard:part", args=[*sample, "thinking"]) + "?all=yes",
        reverse("leaderboard:part", args=[*sample, "answer"]),
        reverse("leaderboard:compare_problem", args=[problem.pk]) + queries,
    ):
        answer = page.get(address)
        assert answer.status_code == 200, address
        assert MENDED in answer.content.decode(), address
    for address in (
        one.get_absolute_url(), one.run.get_absolute_url(),
        reverse("leaderboard:reports", args=[one.pk]), reverse("leaderboard:compare") + queries,
    ):  # fmt: skip
        assert page.get(address).status_code == 200, address


def test_what_a_run_has_just_written(page: Client, both: list[Evaluation]) -> None:
    run = both[0].run
    Run.objects.filter(pk=run.pk).update(state=State.RUNNING)
    run.stages.filter(kind="evaluate").update(state=State.RUNNING)
    answer = page.get(reverse("runs:latest", args=[run.pk]))
    assert answer.status_code == 200
    assert MENDED in answer.content.decode()


def test_what_a_distillation_checked_and_kept(user: Any, page: Client) -> None:
    run = make_run(user, "d", Run.Kind.DISTILLATION, config={"thinking": {"kind": "tags"}})
    checked = make_stage(run, 0, "preflight", "Check")
    found = copy.deepcopy(PREFLIGHT)
    found["example"][0]["text"] = BAD  # type: ignore[index]
    files.stage_folder(checked).mkdir(parents=True)
    (files.stage_folder(checked) / files.PREFLIGHT).write_text(json.dumps(found))
    place = f"runs/{run.pk}/2/lease"
    make_stage(run, 1, "filter", "Filter", result={"corpus": f"{place}/corpus", "funnel": FUNNEL})
    row = {
        "problem_id": "p", "sample": 0, "completion": f"<think>{BAD}</think>{BAD}", "answer": BAD,
        "finish_reason": "stop", "problem": BAD, "step": "answer", "reason": BAD,
    }  # fmt: skip
    files.store_path(place).mkdir(parents=True)
    for which in ("kept", "dropped"):
        (files.store_path(place) / f"{which}.jsonl").write_text(json.dumps(row) + "\n")
    addresses = [reverse("runs:examples", args=[run.pk, which]) for which in ("kept", "dropped")]
    for address in (*addresses, run.get_absolute_url()):
        answer = page.get(address)
        assert answer.status_code == 200, address
        assert MENDED in answer.content.decode(), address


def test_every_form_of_a_report(page: Client, both: list[Evaluation]) -> None:
    for form in reports.AT_ONCE:
        answer = page.get(reverse(f"leaderboard:report_{form}", args=[both[0].pk]))
        assert answer.status_code == 200, form
        assert answer.content
    page.post(reverse("leaderboard:ask_report", args=[both[0].pk]), {"format": "zip"})
    job = desk.claim()
    assert job is not None
    desk.do(job)
    made = Report.objects.get(pk=job.pk)
    assert made.path, made

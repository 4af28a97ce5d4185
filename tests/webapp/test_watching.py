"""A run's page while it works: time left, log, what is being written; and the list of runs."""

from __future__ import annotations

import itertools
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from tests.webapp import samples
from webapp.runs import files, leases, queries, services
from webapp.runs.leases import Claim
from webapp.runs.models import Run, Segment, Shard, Stage, State

pytestmark = pytest.mark.django_db


# --- time left


@given(
    before=st.integers(0, 10**9),
    gained=st.integers(-(10**6), 10**9),
    left=st.integers(0, 10**9),
    seconds=st.floats(0.1, 1e7),
)
def test_the_time_left_follows_the_pace_of_this_attempt_alone(
    before: int, gained: int, left: int, seconds: float
) -> None:
    done = max(before + gained, 0)
    ends = timezone.now()
    stage = Stage(
        state=State.RUNNING, done=done, total=done + left, done_before=before,
        started_at=ends - timedelta(seconds=seconds), finished_at=ends,
    )  # fmt: skip
    eta = queries.StageView(stage).eta_seconds
    if done <= before or not stage.total:
        assert eta is None
    else:
        assert eta == pytest.approx(left / ((done - before) / seconds), rel=1e-4, abs=1e-4)


def test_a_retry_begins_another_attempt(user: Any) -> None:
    run = samples.make_run(user, "torn", Run.Kind.EVALUATION, State.FAILED)
    long_ago = timezone.now() - timedelta(days=3)
    stage = samples.make_stage(
        run, 0, "evaluate", "Draw", state=State.FAILED, done=50, total=100, tokens=700,
        unit="completions", started_at=long_ago, finished_at=long_ago,
    )  # fmt: skip
    token = uuid.uuid4()
    shard = Shard.objects.create(stage=stage, index=0, state=State.FAILED, done=50, total=100)
    services.retry_run(run)
    stage.refresh_from_db()
    assert (stage.started_at, stage.done_before, stage.tokens_before) == (None, 50, 700)
    # It goes on: in a minute it does as much as it did before, and takes as long for the rest.
    Stage.objects.filter(pk=stage.pk).update(
        state=State.RUNNING, started_at=timezone.now() - timedelta(minutes=1)
    )
    Run.objects.filter(pk=run.pk).update(state=State.RUNNING)
    Shard.objects.filter(pk=shard.pk).update(
        state=State.RUNNING, lease_token=token, lease_expires_at=timezone.now() + timedelta(hours=1)
    )
    claim = Claim(shard.pk, stage.pk, run.pk, token, {}, ())
    leases.record_progress(claim, done=75, total=100, unit="completions", tokens=1300)
    view = queries.run_view(run.pk, user).stages[0]
    assert view.eta_seconds == pytest.approx(60, rel=0.1)
    assert view.stage.tokens_per_second == pytest.approx(10, rel=0.1)


def test_a_merging_shard_counts_no_unit_again(user: Any) -> None:
    run = samples.make_run(user, "graded", Run.Kind.EVALUATION, State.RUNNING)
    stage = samples.make_stage(run, 0, "grade", "Grade", state=State.RUNNING, total=30)
    works = [{"problem_ids": ["a"]}, {"problem_ids": ["b"]}, {"merge": True}]
    shards = [
        Shard.objects.create(
            stage=stage, index=index, work=work, state=State.RUNNING, lease_token=uuid.uuid4(),
            lease_expires_at=timezone.now() + timedelta(hours=1),
            total=0 if "merge" in work else 15,
        )
        for index, work in enumerate(works)
    ]  # fmt: skip
    for shard, units, done in zip(shards, (15, 15, 30), (15, 30, 30), strict=True):
        claim = Claim(shard.pk, stage.pk, run.pk, shard.lease_token, shard.work, ())
        leases.record_progress(claim, done=units, total=units, unit="verdicts", tokens=0)
        stage.refresh_from_db()
        assert (stage.done, stage.total) == (done, 30)


# --- the log


def test_a_log_is_shown_under_the_lease_only(user: Any) -> None:
    run = samples.make_run(user, "under way", Run.Kind.EVALUATION, State.RUNNING)
    stage = samples.make_stage(run, 0, "evaluate", "Draw", state=State.RUNNING)
    token = uuid.uuid4()
    shard = Shard.objects.create(
        stage=stage, index=0, state=State.RUNNING, lease_token=token,
        lease_expires_at=timezone.now() + timedelta(hours=1),
    )  # fmt: skip
    leases.show_log(Claim(shard.pk, stage.pk, run.pk, token, {}, ()), "mine\x00")
    leases.show_log(Claim(shard.pk, stage.pk, run.pk, uuid.uuid4(), {}, ()), "a revived one's")
    stage.refresh_from_db()
    assert stage.log_tail == "mine\ufffd"


def test_a_failed_run_says_where_why_and_what_its_log_said_last(user: Any, page: Client) -> None:
    run = samples.make_run(user, "torn", Run.Kind.DISTILLATION, State.FAILED, config={})
    Run.objects.filter(pk=run.pk).update(error="The disk is full: make room, then retry.")
    samples.make_stage(run, 0, "generate", "Draw traces")
    lines = [f"line {n}" for n in range(50)]
    samples.make_stage(
        run, 1, "filter", "Filter traces", state=State.FAILED, log_tail="\n".join(lines),
        error="The disk is full: make room, then retry.",
    )  # fmt: skip
    text = page.get(run.get_absolute_url()).content.decode()
    message = text[text.index('role="alert"') : text.index("Stages</h2>")]
    assert "stage 2 of 2, Filter traces" in message
    assert "The disk is full: make room, then retry." in message
    assert "\n".join(lines[-20:]) in message
    assert "line 29" not in message
    assert "Retry from here" in text


# --- what is being written


def test_what_was_written_last_is_shown_while_it_is_written(user: Any, page: Client) -> None:
    problems = samples.arithmetic(3)
    evaluation = samples.make_evaluation(
        user, samples.make_checkpoint(user, "tiny"), samples.make_benchmark(problems), problems,
        samples=2,
        draw=lambda rng, problem, sample: (
            f"<think>{samples.HOSTILE}</think>{'x' * 9000} end of {problem.id}-{sample}",
            samples.Outcome.WRONG, "", "",
        ),
    )  # fmt: skip
    run = evaluation.run
    address = f"/runs/{run.pk}/latest/"
    Run.objects.filter(pk=run.pk).update(state=State.RUNNING)
    run.stages.filter(kind="evaluate").update(state=State.RUNNING)
    answer = page.get(address)
    assert answer.status_code == 200
    text = answer.content.decode()
    for sample in (0, 1):
        assert f"end of {problems[-1].id}-{sample}" in text
    assert problems[0].id not in text
    assert "<script>" not in text
    assert "characters" in text
    assert len(text) < 20_000
    # A damaged segment is said to be one.
    segment = Segment.objects.filter(shard__stage__run=run).latest("pk")
    path = files.segment_path(segment.shard.stage, segment.name)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "What it wrote last cannot be read" in samples.text_of(page.get(address))
    path.write_bytes(whole)
    # Once the run is final the page stops asking (htmx's status 286).
    run.stages.update(state=State.FINISHED)
    Run.objects.filter(pk=run.pk).update(state=State.FINISHED)
    ended = page.get(address)
    assert ended.status_code == 286
    assert not ended.content.strip()
    assert "latest/" not in page.get(run.get_absolute_url()).content.decode()


# --- the list


def test_the_list_of_runs_is_filtered_by_all_that_is_asked(
    user: Any, admin: Any, page: Client
) -> None:
    wanted = [
        samples.make_run(owner, name, Run.Kind(kind), state, config={})
        for owner, kind, state, name in itertools.product(
            (user, admin), Run.Kind.values, (State.FINISHED, State.FAILED),
            ("r1 to tiny", "100%_sure"),
        )
    ]  # fmt: skip
    for query in (
        {}, {"state": "failed"}, {"kind": "evaluation"}, {"owner": "root"}, {"name": "TINY"},
        {"name": "%_"}, {"state": "finished", "kind": "distillation", "owner": "ada", "name": "r1"},
        {"state": "no such"}, {"owner": "nobody"}, {"name": "\x00"},
    ):  # fmt: skip
        shown = {view.run.pk for view in page.get("/runs/", query).context["runs"]}
        chosen = {
            run.pk
            for run in wanted
            if query.get("state", run.state) in (run.state, "no such")
            and query.get("kind", run.kind) == run.kind
            and query.get("owner", run.owner.username) == run.owner.username
            and query.get("name", "").lower() in run.name.lower()
        }
        assert shown == chosen, query


def test_the_list_of_runs_asks_the_same_number_of_questions_for_any_number(
    user: Any, page: Client
) -> None:
    counts = []
    for _ in range(2):
        for number in range(10):
            run = samples.make_run(user, f"run {number}", Run.Kind.EVALUATION, State.RUNNING)
            samples.make_stage(run, 0, "evaluate", "Draw", state=State.RUNNING)
        with CaptureQueriesContext(
            connection,
        ) as caught:
            page.get("/runs/")
        counts.append(len(caught))
    assert counts[0] == counts[1] <= 8


def test_a_finished_run_offers_to_compare_what_it_measured(user: Any, page: Client) -> None:
    problems = samples.arithmetic(3)
    benchmark = samples.make_benchmark(problems)
    run = samples.make_run(user, "measured", Run.Kind.EVALUATION)
    found = [
        samples.make_evaluation(
            user, samples.make_checkpoint(user, name), benchmark, problems, run=run
        )
        for name in ("one", "two")
    ]
    text = page.get(run.get_absolute_url()).content.decode()
    address = f"/compare/?e={found[0].pk}&amp;e={found[1].pk}"
    assert address in text
    assert page.get(address.replace("&amp;", "&")).status_code == 200

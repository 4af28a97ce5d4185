"""One stage's child: fed, heard, refused, ended."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection

from webapp.core import store
from webapp.runs import files, handover, leases, services
from webapp.runs.models import Completion, Run, Segment, Shard, Stage, State
from workers import supervisor
from workers.supervisor import Post
from workers.tasks.stages import do_work

Behave = Callable[[str], None]


def test_all_shards_are_done_in_one_child(run: Run, evaluate: Stage, child: Behave) -> None:
    child("well")
    do_work("me", ["gpu"])
    evaluate.refresh_from_db()
    run.refresh_from_db()
    assert evaluate.state == State.FINISHED
    assert (evaluate.done, evaluate.total) == (240, 240)
    assert run.state == State.RUNNING
    assert run.stages.get(kind="grade").state == State.QUEUED
    evaluation = run.evaluations.get()
    assert evaluation.completions.count() == 240
    assert evaluation.engine == {"name": "scripted", "how": "well"}
    assert evaluation.rendered_prompt == "What is\ufffd it?"
    some = evaluation.completions.order_by("?").first()
    assert some is not None
    assert files.completion_text(some)["text"].startswith(some.problem.problem_id)


def test_a_failing_child_leaves_its_sentence_and_its_log(
    run: Run, evaluate: Stage, child: Behave
) -> None:
    child("broken")
    do_work("me", ["gpu"])
    run.refresh_from_db()
    evaluate.refresh_from_db()
    assert run.state == evaluate.state == State.FAILED
    assert run.error == "model: the tensor is bent; straighten it."
    assert "BrokenError" in evaluate.log_tail
    assert run.stages.get(kind="grade").state == State.CANCELLED
    assert not run.stages.filter(shards__state__in=leases.LIVE).exists()


@pytest.mark.parametrize(("how", "sentence"), [("killed", "SIGKILL"), ("exits", "exit code 3")])
def test_a_silent_end_is_explained(
    run: Run, evaluate: Stage, child: Behave, how: str, sentence: str, settings: Any
) -> None:
    settings.RETORT_RETRY_SECONDS = 0.0
    child(how)
    for _ in range(settings.RETORT_MAX_FAILURES):
        do_work("me", ["gpu"])
    run.refresh_from_db()
    assert run.state == State.FAILED
    assert sentence in run.error
    if how == "exits":
        evaluate.refresh_from_db()
        assert "the last words" in evaluate.log_tail


def test_a_transient_failure_waits_and_is_tried_three_times(
    run: Run, evaluate: Stage, child: Behave, settings: Any
) -> None:
    child("flaky")
    settings.RETORT_RETRY_SECONDS = 3600.0
    do_work("me", ["gpu"])
    shard = evaluate.shards.get(index=0)
    assert (shard.state, shard.attempts) == (State.QUEUED, 1)
    assert shard.not_before is not None
    assert "dropped" in shard.error
    Shard.objects.update(not_before=None)
    for _ in range(settings.RETORT_MAX_FAILURES - 1):
        run.refresh_from_db()
        assert run.state == State.RUNNING
        Shard.objects.update(not_before=None)
        do_work("me", ["gpu"])
    run.refresh_from_db()
    assert (run.state, run.error) == (State.FAILED, "engine: the line was dropped.")


def test_the_child_sees_only_allowed_names(
    run: Run, evaluate: Stage, child: Behave, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_KEY", "do not tell")
    monkeypatch.setenv("DATABASE_URL", "postgres://u:p@h/d")
    child("exits")
    do_work("me", ["gpu"])
    evaluate.refresh_from_db()
    line = next(x for x in evaluate.log_tail.splitlines() if x.startswith("environment:"))
    names = set(line.split()[1:])
    assert "PATH" in names
    assert not names & {"SECRET_KEY", "DATABASE_URL", "RETORT_VAR", "CELERY_BROKER_URL"}


def test_cancelling_kills_the_whole_group_within_ten_seconds(
    run: Run,
    evaluate: Stage,
    child: Behave,
    wait_until: Callable[..., Any],
    at_work: Callable[[str], threading.Thread],
    group_members: Callable[[int], list[int]],
) -> None:
    child("stubborn")

    worker = at_work("me")
    note = files.segments_folder(evaluate) / "group"
    wait_until(lambda: note.exists() and note.read_text())
    group = int(note.read_text())
    assert len(group_members(group)) == 2
    asked = time.monotonic()
    services.cancel_run(run)
    worker.join(timeout=30)
    assert not worker.is_alive()
    assert time.monotonic() - asked < 10
    assert group_members(group) == []
    run.refresh_from_db()
    assert run.state == State.CANCELLED


def test_a_child_that_hears_nothing_holds_nobody_up(
    run: Run,
    evaluate: Stage,
    child: Behave,
    wait_until: Callable[..., Any],
    at_work: Callable[[str], threading.Thread],
    group_members: Callable[[int], list[int]],
    settings: Any,
) -> None:
    """A message may be longer than what a pipe holds, and a process may hang before it reads."""
    settings.RETORT_LEASE_SECONDS = 3.0
    Shard.objects.filter(stage=evaluate).update(work={"problem_ids": ["p" * 1000] * 1000})
    child("deaf")
    worker = at_work("me")
    note = files.stage_folder(evaluate) / "group"
    wait_until(lambda: note.exists() and note.read_text())
    group = int(note.read_text())
    held = Shard.objects.exclude(lease_token=None)
    first = wait_until(held.first)
    renewed = first.lease_expires_at + 2 * timedelta(seconds=settings.RETORT_LEASE_SECONDS)
    wait_until(lambda: held.get().lease_expires_at > renewed)
    assert held.get().lease_token == first.lease_token
    asked = time.monotonic()
    services.cancel_run(run)
    worker.join(timeout=20)
    taken = time.monotonic() - asked
    if group_members(group):
        os.killpg(group, signal.SIGKILL)
    worker.join()
    assert taken < 10


@pytest.mark.parametrize("how", ["cancelled", "stopped"])
def test_what_is_brought_for_hours_is_given_up(
    run: Run, evaluate: Stage, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model of hundreds of gigabytes on its way from a bucket, and no child yet."""
    began = threading.Event()

    def bring(spec: Any) -> None:
        began.set()
        while time.monotonic() < deadline:
            store.require_wanted()
            time.sleep(0.01)

    monkeypatch.setattr(handover, "bring", bring)
    monkeypatch.setattr(supervisor, "Child", None)
    claim = leases.claim_shard(evaluate.pk, "me")
    assert claim is not None
    stopping = threading.Event()
    post = Post("me", ["gpu"], leases, stopping)

    def work() -> None:
        supervisor.supervise(evaluate, claim, post)
        connection.close()

    deadline = time.monotonic() + 60
    worker = threading.Thread(target=work)
    worker.start()
    assert began.wait(10)
    asked = time.monotonic()
    services.cancel_run(run) if how == "cancelled" else stopping.set()
    worker.join(timeout=30)
    assert time.monotonic() - asked < 10
    shard = Shard.objects.get(pk=claim.shard_id)
    state = State.CANCELLED if how == "cancelled" else State.QUEUED
    assert (shard.state, shard.lease_token) == (state, None)
    assert shard.error == ""


def test_a_worker_told_to_stop_gives_the_shard_back(
    run: Run, evaluate: Stage, child: Behave, wait_until: Callable[..., Any]
) -> None:
    child("stubborn")
    claim = leases.claim_shard(evaluate.pk, "me")
    assert claim is not None
    stopping = threading.Event()
    timer = threading.Timer(0.5, stopping.set)
    timer.start()
    supervisor.supervise(evaluate, claim, Post("me", ["gpu"], leases, stopping))
    shard = Shard.objects.get(pk=claim.shard_id)
    assert (shard.state, shard.attempts, shard.lease_token) == (State.QUEUED, 0, None)


def test_a_retry_goes_on_after_what_was_accepted(run: Run, evaluate: Stage, child: Behave) -> None:
    child("well")
    first = leases.claim_shard(evaluate.pk, "me")
    assert first is not None
    services.cancel_run(run)
    services.retry_run(run)
    do_work("me", ["gpu"])
    kept = set(Segment.objects.values_list("pk", flat=True))
    Stage.objects.filter(pk=evaluate.pk).update(state=State.FAILED)
    Run.objects.filter(pk=run.pk).update(state=State.FAILED)
    Shard.objects.filter(stage=evaluate, index=2).update(state=State.FAILED)
    services.retry_run(run)
    do_work("me", ["gpu"])
    assert set(Segment.objects.values_list("pk", flat=True)) == kept
    assert Completion.objects.count() == 240
    run.refresh_from_db()
    assert run.stages.get(kind="evaluate").state == State.FINISHED

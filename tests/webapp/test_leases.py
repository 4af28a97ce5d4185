"""Two workers never hold one shard, and only what a lease's holder delivers counts."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.db.models.functions import Now

from evaluator.benchmarks import arithmetic
from evaluator.errors import StoreError
from evaluator.protocol import Protocol
from evaluator.records import Completion as Row
from evaluator.records import FinishReason
from evaluator.store import SealedSegment, SegmentWriter
from webapp.benchmarks.services import install_benchmark
from webapp.checkpoints.models import Checkpoint
from webapp.projects.access import first_project
from webapp.runs import files, leases, services, stages
from webapp.runs.leases import Claim, LeaseLostError
from webapp.runs.models import Completion, Run, Segment, Shard, Stage, State

PROBLEMS = 110
SAMPLES = 2


@pytest.fixture
def rung(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Stages that were rung; no broker is involved."""
    rings: list[int] = []
    monkeypatch.setattr(stages, "ring", lambda stage, times: rings.append(stage.pk))
    monkeypatch.setattr(stages, "is_full", lambda queue: False)
    return rings


@pytest.fixture
def run(transactional_db: None, user: Any, rung: list[int]) -> Run:
    benchmark = install_benchmark("arithmetic", arithmetic.generate(PROBLEMS, seed=3), "a test")
    checkpoint = Checkpoint.objects.create(
        project=first_project(), name="tiny", path="checkpoints/tiny", owner=user
    )
    return services.launch_evaluation(
        owner=user, checkpoint=checkpoint, benchmark=benchmark, protocol=Protocol(samples=SAMPLES)
    )


@pytest.fixture
def stage(run: Run) -> Stage:
    return run.stages.get(kind="evaluate")


def claimed(stage: Stage, worker: str = "me") -> Claim:
    claim = leases.claim_shard(stage.pk, worker)
    assert claim is not None
    return claim


def rows_of(claim: Claim) -> list[dict[str, Any]]:
    return [
        Row(problem_id, sample, f"{problem_id}\x00\ud800", FinishReason.STOP).to_json()
        for problem_id in claim.work["problem_ids"]
        for sample in range(SAMPLES)
    ]


def seal(stage: Stage, claim: Claim, rows: list[dict[str, Any]]) -> SealedSegment:
    writer = SegmentWriter(files.segments_folder(stage), prefix=claim.prefix)
    for row in rows:
        writer.append(row | {"text": row["text"].replace("\ud800", "")})
    sealed = writer.seal()
    assert sealed is not None
    return sealed


def deliver(stage: Stage, claim: Claim, rows: list[dict[str, Any]] | None = None) -> None:
    sealed = seal(stage, claim, rows_of(claim) if rows is None else rows)
    leases.accept_segment(claim, name=sealed.name, size_bytes=sealed.bytes, sha256=sealed.sha256)


def expire(claim: Claim) -> None:
    Shard.objects.filter(pk=claim.shard_id).update(lease_expires_at=Now() - timedelta(seconds=1))


def test_launching_rings_once_after_commit(run: Run, rung: list[int], stage: Stage) -> None:
    assert rung == [stage.pk]
    assert [len(shard.work["problem_ids"]) for shard in stage.shards.all()] == [50, 50, 10]
    assert stage.total == PROBLEMS * SAMPLES


def test_claimers_that_race_never_share_a_shard(stage: Stage) -> None:
    claims: list[Claim] = []
    barrier = threading.Barrier(8)

    def claim_all(worker: str) -> None:
        barrier.wait()
        while (claim := leases.claim_shard(stage.pk, worker)) is not None:
            claims.append(claim)
        connection.close()

    threads = [threading.Thread(target=claim_all, args=(f"w{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(claim.shard_id for claim in claims) == Counter(
        stage.shards.values_list("pk", flat=True)
    )
    stage.refresh_from_db()
    assert stage.state == State.RUNNING
    assert stage.started_at is not None


def test_a_lease_that_ran_out_is_taken_over_and_the_revived_worker_refused(stage: Stage) -> None:
    old = claimed(stage, "old")
    late = seal(stage, old, rows_of(old))
    expire(old)
    new = claimed(stage, "new")
    assert new.shard_id == old.shard_id
    assert not leases.renew(old)
    with pytest.raises(LeaseLostError):
        leases.accept_segment(old, name=late.name, size_bytes=late.bytes, sha256=late.sha256)
    for act in (
        lambda: leases.finish_shard(old, {"rendered_prompt": ""}),
        lambda: leases.fail_shard(old, "no", transient=False),
        lambda: leases.record_progress(old, done=1, total=1, unit="x", tokens=0),
        lambda: leases.add_training_point(old, step=1, values={}),
        lambda: leases.engine_ready(old, {}),
    ):
        with pytest.raises(LeaseLostError):
            act()
    leases.release_shard(old)
    assert leases.is_held(new)
    assert not Segment.objects.exists()
    assert not Completion.objects.exists()


def test_a_lease_is_kept_by_renewing_it(stage: Stage) -> None:
    claim = claimed(stage)
    expire(claim)
    assert leases.renew(claim)
    assert leases.claim_shard(stage.pk, "other") != claim
    assert leases.is_held(claim)


def test_the_next_lease_knows_the_accepted_segments_and_no_key_doubles(stage: Stage) -> None:
    first = claimed(stage)
    half = rows_of(first)[:40]
    deliver(stage, first, half)
    expire(first)
    second = claimed(stage)
    assert second.accepted == tuple(Segment.objects.values_list("name", flat=True))
    deliver(stage, second)  # all, although 40 are there already
    assert Completion.objects.count() == 50 * SAMPLES
    earlier = Completion.objects.filter(segment__lease_token=first.token)
    assert earlier.count() == 40


def test_delivering_the_same_segment_twice_changes_nothing(stage: Stage) -> None:
    claim = claimed(stage)
    sealed = seal(stage, claim, rows_of(claim))
    for _ in range(2):
        leases.accept_segment(
            claim, name=sealed.name, size_bytes=sealed.bytes, sha256=sealed.sha256
        )
    assert Segment.objects.count() == 1
    assert Completion.objects.count() == 50 * SAMPLES


@pytest.mark.parametrize("damage", [b"", b"\x00", b"torn"])
def test_a_damaged_segment_is_refused_whole(stage: Stage, damage: bytes) -> None:
    claim = claimed(stage)
    sealed = seal(stage, claim, rows_of(claim))
    path = files.segments_folder(stage) / sealed.name
    path.write_bytes(path.read_bytes()[:-10] + damage)
    with pytest.raises(StoreError):
        leases.accept_segment(
            claim, name=sealed.name, size_bytes=sealed.bytes, sha256=sealed.sha256
        )
    assert not Completion.objects.exists()


@pytest.mark.parametrize("name", ["../../../etc/passwd", "00000001-other-00000.jsonl.zst"])
def test_a_segment_that_is_not_the_leases_is_refused(stage: Stage, name: str) -> None:
    claim = claimed(stage)
    with pytest.raises(LeaseLostError):
        leases.accept_segment(claim, name=name, size_bytes=1, sha256="0" * 64)


def test_a_shard_with_missing_completions_cannot_finish(stage: Stage) -> None:
    claim = claimed(stage)
    deliver(stage, claim, rows_of(claim)[:-1])
    with pytest.raises(stages.IncompleteError, match="99 of 100"):
        leases.finish_shard(claim, {"rendered_prompt": ""})
    assert leases.is_held(claim)


def test_the_last_shard_finishes_the_stage_whichever_it_is(
    run: Run, stage: Stage, rung: list[int]
) -> None:
    claims = [claimed(stage, f"w{i}") for i in range(3)]
    barrier = threading.Barrier(3)

    def finish(claim: Claim) -> None:
        deliver(stage, claim)
        barrier.wait()
        leases.finish_shard(claim, {"rendered_prompt": "as asked"})
        connection.close()

    threads = [threading.Thread(target=finish, args=(claim,)) for claim in claims]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stage.refresh_from_db()
    grade = run.stages.get(kind="grade")
    assert (stage.state, grade.state) == (State.FINISHED, State.QUEUED)
    assert rung[-1] == grade.pk
    assert Completion.objects.count() == PROBLEMS * SAMPLES
    # A doorbell that comes too late, or twice, finds nothing to do.
    assert leases.claim_shard(stage.pk, "late") is None


def test_grading_sets_outcomes_and_figures(run: Run, stage: Stage) -> None:
    while (claim := leases.claim_shard(stage.pk, "me")) is not None:
        deliver(stage, claim)
        leases.finish_shard(claim, {"rendered_prompt": "as asked"})
    grade = run.stages.get(kind="grade")
    claim = claimed(grade)
    verdicts = [
        {
            "problem_id": completion.problem.problem_id, "sample": completion.sample,
            "outcome": "wrong", "answer": "1\x00\ud800", "reason": "not equal", "text": "",
        }
        for completion in Completion.objects.select_related("problem")
    ]  # fmt: skip
    deliver(grade, claim, verdicts)
    assert set(Completion.objects.values_list("outcome", "answer", "reason")) == {
        ("wrong", "1\ufffd?", "not equal")
    }
    metrics = {
        "pass@1": {"value": 0.25}, "majority": "\x00", "measurement_hash": "m" * 64,
        "run_fingerprint": "f" * 64,
    }  # fmt: skip
    leases.finish_shard(claim, {"metrics": metrics})
    evaluation = run.evaluations.get()
    assert evaluation.measurement_hash == "m" * 64  # of the grader that graded
    assert evaluation.pass_at_1 == 0.25
    assert evaluation.metrics["majority"] == "\ufffd"
    run.refresh_from_db()
    assert run.state == State.FINISHED
    assert run.finished_at is not None


def test_the_reaper_rings_what_can_be_claimed_and_nothing_else(
    run: Run, stage: Stage, rung: list[int]
) -> None:
    del rung[:]
    assert leases.reap() == [stage.pk] == rung
    claims = [claimed(stage) for _ in range(3)]
    assert leases.reap() == []
    expire(claims[1])
    assert leases.reap() == [stage.pk]
    services.cancel_run(run)
    assert leases.reap() == []


def test_a_shard_that_kills_its_workers_fails_the_run_in_the_end(run: Run, stage: Stage) -> None:
    for _ in range(leases.MAX_LOST):
        assert leases.reap() == [stage.pk]
        expire(claimed(stage))
    assert leases.reap() == []
    run.refresh_from_db()
    assert run.state == State.FAILED
    assert "vanished" in run.error


def test_cancelling_takes_every_lease_away(run: Run, stage: Stage) -> None:
    claim = claimed(stage)
    services.cancel_run(run)
    assert not leases.renew(claim)
    assert leases.claim_shard(stage.pk, "me") is None
    assert set(run.stages.values_list("state", flat=True)) == {State.CANCELLED}


def test_training_points_are_replaced_after_a_resume_and_nan_is_blank(stage: Stage) -> None:
    claim = claimed(stage)
    leases.add_training_point(claim, step=1, values={"loss": float("nan")})
    leases.add_training_point(claim, step=1, values={"loss": 2.0, "grad_norm": float("inf")})
    point = stage.points.get()
    assert point.values == {"loss": 2.0, "grad_norm": None}


def test_progress_adds_up_over_shards(stage: Stage) -> None:
    for _ in range(2):
        leases.record_progress(claimed(stage), done=5, total=100, unit="completions", tokens=70)
    stage.refresh_from_db()
    assert (stage.done, stage.total, stage.tokens) == (10, PROBLEMS * SAMPLES, 140)
    assert stage.tokens_per_second is not None
    assert stage.tokens_per_second > 0


def test_texts_stay_in_files(stage: Stage, run: Run) -> None:
    claim = claimed(stage)
    deliver(stage, claim)
    completion = Completion.objects.order_by("-offset")[0]
    row = files.completion_text(completion)
    assert row["problem_id"] == completion.problem.problem_id
    assert row["sample"] == completion.sample
    assert Path(files.accepted_segments(stage)[0]).is_file()

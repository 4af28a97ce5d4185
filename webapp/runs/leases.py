"""Leases: who does which shard, and what of it counts.

A shard is claimed by compare-and-set with a fresh token; only the token's holder can renew, deliver
segments, finish or fail it. Times are the database's. Whatever changes more than one shard locks
the run's row first, so that transitions of one run follow one another and never deadlock.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Count, Exists, F, OuterRef, Q, QuerySet, Sum, Value
from django.db.models.functions import Extract, Now

from evaluator.errors import StoreError
from evaluator.store import read_segment
from webapp.config import celery
from webapp.core import logs, store
from webapp.core.errors import UserError
from webapp.core.text import storable, storable_json
from webapp.runs import completions, files, stages
from webapp.runs.ledger import Usage
from webapp.runs.models import (
    Run,
    Segment,
    Shard,
    Stage,
    State,
    TrainingPoint,
)

MAX_LOST = 10  # leases of a shard that ran out: something in it kills workers
MAX_RINGS = 16  # a stage with many shards wakes so many workers at once
LIVE = (State.QUEUED, State.RUNNING)


class LeaseLostError(Exception):
    """The lease is another worker's by now, or the run was cancelled: drop everything."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One leased shard. ``accepted`` names the segments of earlier leases that count."""

    shard_id: int
    stage_id: int
    run_id: int
    token: uuid.UUID
    work: Mapping[str, Any]
    accepted: tuple[str, ...]

    @property
    def prefix(self) -> str:
        """What the names of this lease's segments start with (``ShardRequest.prefix``)."""
        return f"{self.shard_id:08d}-{self.token.hex}"

    @property
    def log_ids(self) -> dict[str, Any]:
        """What lines about its work carry; of the token only as much as tells leases apart."""
        lease = logs.short_lease(self.token.hex)
        return {
            "run": self.run_id, "stage": self.stage_id, "shard": self.shard_id, "lease": lease,
        }  # fmt: skip


def _lease_end() -> Any:
    return Now() + Value(timedelta(seconds=settings.RETORT_LEASE_SECONDS))


def _claimable() -> Q:
    """Never claimed, released, or the lease ran out."""
    fresh = Q(state=State.QUEUED) & (Q(not_before=None) | Q(not_before__lte=Now()))
    return fresh | Q(state=State.RUNNING, lease_expires_at__lt=Now())


def _held(claim: Claim) -> QuerySet[Shard]:
    """The shard's row as long as this lease holds it."""
    return Shard.objects.filter(pk=claim.shard_id, lease_token=claim.token, state=State.RUNNING)


def lock_run(run_id: int) -> Run:
    """The run's row, locked against other transitions of the run."""
    # "no key": rows that refer to the run may be inserted meanwhile.
    return Run.objects.select_for_update(no_key=True).get(pk=run_id)


_CLAIM = "SELECT * FROM runs_claim(%s, %s, %s, %s, %s, %s, %s)"


def claim(
    worker: str,
    queues: Sequence[str] = celery.QUEUES,
    *,
    sticky: int | None = None,
    only_stage: int | None = None,
    max_devices: int | None = None,
) -> Claim | None:
    """Lease the shard that is next by the claim order (claim.sql); None where there is none.

    ``sticky`` is the stage that the worker has a model loaded for, ``max_devices`` what a child on
    this host may be given at most; None where devices do not matter.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            _CLAIM,
            [list(queues), worker, settings.RETORT_LEASE_SECONDS, sticky, only_stage,
             max_devices, settings.RETORT_USER_SHARDS],
        )  # fmt: skip
        row = cursor.fetchone()
    if row is None:
        return None
    shard_id, stage_id, run_id, token, work, starts, accepted = row
    work = json.loads(work) if isinstance(work, str) else work
    if starts:
        _mark_running(run_id, stage_id)
    return Claim(shard_id, stage_id, run_id, token, work, tuple(accepted))


def claim_shard(stage_id: int, worker: str) -> Claim | None:
    """Lease the stage's first claimable shard to ``worker``; None where there is none."""
    return claim(worker, only_stage=stage_id)


def _mark_running(run_id: int, stage_id: int) -> None:
    """What people see of a claim; the next one does it again if we die before."""
    for model, pk in ((Run, run_id), (Stage, stage_id)):
        rows = model.objects.filter(pk=pk)
        rows.filter(state=State.QUEUED).update(state=State.RUNNING)
        rows.filter(state=State.RUNNING, started_at=None).update(started_at=Now())


write_spec = stages.write_spec


def renew(claim: Claim) -> bool:
    """Prolong the lease; False when it is lost."""
    return bool(_held(claim).update(lease_expires_at=_lease_end(), updated_at=Now()))


def is_held(claim: Claim) -> bool:
    """Whether the lease still holds (it is lost at once when the run is cancelled)."""
    return _held(claim).exists()


def record_usage(claim: Claim, usage: Usage) -> None:
    """Note what the lease has taken so far; its end puts that into the ledger (ledger.sql).

    Nothing happens when the lease is lost: its entry is written already.
    """
    _held(claim).update(usage=usage.to_json())


def show_log(claim: Claim, log_tail: str) -> None:
    """Show the child's last lines on the run's page; nothing when the lease is lost."""
    stage = Stage.objects.filter(pk=claim.stage_id)
    stage.filter(Exists(_held(claim))).update(log_tail=storable(log_tail))


def release_shard(claim: Claim) -> None:
    """Give the shard back untried: the worker is told to stop."""
    _held(claim).update(
        state=State.QUEUED, lease_token=None, lease_expires_at=None,
        attempts=F("attempts") - 1, updated_at=Now(),
    )  # fmt: skip


def accept_segment(claim: Claim, *, name: str, size_bytes: int, sha256: str) -> None:
    """Make a sealed segment count: its row, and what its lines say of completions.

    Raises LeaseLostError, or evaluator.errors.StoreError when the file is not the one announced.
    """
    stage = Stage.objects.select_related("evaluation").get(pk=claim.stage_id)
    if not name.startswith(f"{claim.prefix}-") or "/" in name:
        raise LeaseLostError(f"segment {name} is not named after this lease")
    path = files.segments_folder(stage) / name
    content = list(read_segment(path, sha256=sha256))
    store.publish(store.relative_of(path))
    with transaction.atomic():
        if not _held(claim).select_for_update(no_key=True).exists():
            raise LeaseLostError("the lease is no longer ours")
        segment, created = Segment.objects.get_or_create(
            shard_id=claim.shard_id, name=name,
            defaults={
                "lease_token": claim.token, "sha256": sha256,
                "row_count": len(content), "size_bytes": size_bytes,
            },
        )  # fmt: skip
        if not created or stage.evaluation is None:
            return
        if stage.kind == "grade":
            completions.set_outcomes(stage.evaluation_id, [row for _, row in content])
        else:
            completions.take(stage.evaluation, segment, content)


def record_progress(claim: Claim, *, done: int, total: int, unit: str, tokens: int) -> None:
    """Set the shard's progress and add up the stage's. Raises LeaseLostError.

    What the merging shard goes through are the units that the others did: they count once.
    """
    held = _held(claim).update(done=done, total=total, tokens=tokens, updated_at=Now())
    if not held:
        raise LeaseLostError("the lease is no longer ours")
    sums = (
        Shard.objects.filter(stage_id=claim.stage_id)
        .exclude(work__has_key="merge")
        .aggregate(done=Sum("done"), total=Sum("total"), tokens=Sum("tokens"))
    )
    stage = Stage.objects.filter(pk=claim.stage_id)
    stage.update(**sums, unit=unit)
    stage.filter(tokens__gt=F("tokens_before"), started_at__lt=Now()).update(
        tokens_per_second=(F("tokens") - F("tokens_before"))
        * 1.0
        / Extract(Now() - F("started_at"), "epoch")
    )


def add_training_point(claim: Claim, *, step: int, values: Mapping[str, float]) -> None:
    """Log a training step; a step that is done again after a resume replaces its point."""
    finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
    with transaction.atomic():
        if not _held(claim).select_for_update(no_key=True).exists():
            raise LeaseLostError("the lease is no longer ours")
        TrainingPoint.objects.update_or_create(
            stage_id=claim.stage_id, step=step, defaults={"values": finite}
        )


def engine_ready(claim: Claim, engine: Mapping[str, Any]) -> None:
    """The child's model is loaded: keep what drew an evaluation's completions."""
    with transaction.atomic():
        if not _held(claim).select_for_update(no_key=True).exists():
            raise LeaseLostError("the lease is no longer ours")
        stage = Stage.objects.get(pk=claim.stage_id)
        stages.engine_ready(stage, storable_json(dict(engine)))


def finish_shard(claim: Claim, result: Mapping[str, Any]) -> None:
    """The shard is done; the stage's last one finishes the stage, and the next is queued.

    Raises LeaseLostError, or stages.IncompleteError where rows are missing that the work names.
    """
    _check_complete(claim, result)
    outcome = storable_json(dict(result))
    if _finish_among_others(claim, outcome):
        return
    with transaction.atomic():
        run = lock_run(claim.run_id)
        if not _finish(_held(claim), outcome):
            raise LeaseLostError("the lease is no longer ours")
        advance(run, Stage.objects.select_related("evaluation").get(pk=claim.stage_id))


def _check_complete(claim: Claim, result: Mapping[str, Any]) -> None:
    if "problem_ids" not in claim.work:
        return
    # Before anything is locked: what counts for this shard is changed under its lease only.
    shard = _held(claim).select_related("stage__evaluation").first()
    if shard is None:
        raise LeaseLostError("the lease is no longer ours")
    stages.check_complete(shard.stage, shard, result)


def _open_shards(stage_id: Any) -> QuerySet[Shard]:
    return Shard.objects.filter(stage_id=stage_id, state__in=LIVE)


def _finish(held: QuerySet[Shard], outcome: dict[str, Any]) -> bool:
    return bool(
        held.update(
            state=State.FINISHED, result=outcome, done=F("total"),
            lease_token=None, lease_expires_at=None, error="", updated_at=Now(),
        )
    )  # fmt: skip


def _finish_among_others(claim: Claim, outcome: dict[str, Any]) -> bool:
    """Finish a shard that is not the stage's last one; False where it is, or the lease is lost.

    The run is not locked, because thousands of shards may end at the same time. Two shards that do
    can each take the other for open: so it is asked again when this one's end is there for others
    to see. Who dies in between leaves it to the upkeep (``go_on_with_stalled``).
    """
    others = _open_shards(OuterRef("stage_id")).exclude(pk=claim.shard_id)
    if not _finish(_held(claim).filter(Exists(others)), outcome):
        return False
    if not _open_shards(claim.stage_id).exists():
        go_on(claim.stage_id)
    return True


def go_on(stage_id: int) -> bool:
    """Advance a stage all of whose shards have ended; False where others have, or it is too early.

    The judge's stages are settled otherwise (settling.py).
    """
    stage = Stage.objects.select_related("evaluation").get(pk=stage_id)
    with transaction.atomic():
        run = lock_run(stage.run_id)
        stage.refresh_from_db(fields=["state"])
        if run.state not in LIVE or stage.state not in LIVE or stage.queue == celery.JUDGE:
            return False
        last = stage.shards.filter(state=State.FINISHED).order_by("-index").first()
        if last is None or _open_shards(stage_id).exists():
            return False
        try:
            with transaction.atomic():
                advance(run, stage)
        except (StoreError, UserError) as error:
            fail_run(run, last, str(error), stage.log_tail)
    return True


def go_on_with_stalled() -> list[int]:
    """Advance the stages whose last shard's end nobody followed up; returns their ids."""
    live = Stage.objects.filter(state__in=LIVE, run__state__in=LIVE)
    stalled = live.exclude(queue=celery.JUDGE).filter(
        ~Exists(_open_shards(OuterRef("pk"))),
        Exists(Shard.objects.filter(stage_id=OuterRef("pk"), state=State.FINISHED)),
    )
    return [pk for pk in stalled.values_list("pk", flat=True) if go_on(pk)]


def advance(run: Run, stage: Stage) -> None:
    """A shard of the stage was finished: let the merging one begin, or finish the stage."""
    if _open_shards(stage.pk).exists():
        return
    waiting = stage.shards.filter(state=State.WAITING)
    if waiting.update(state=State.QUEUED, updated_at=Now()):
        ring_after_commit(stage)
        return
    last = stage.shards.order_by("-index")[0]
    _finish_stage(run, stage, last.result)


def hold_back_merges(run: Run) -> None:
    """After a retry: a merging shard waits for the others of its stage, if any are left."""
    merging = Shard.objects.filter(stage__run=run, state=State.QUEUED, work__merge=True)
    for shard in merging:
        others = Shard.objects.filter(stage_id=shard.stage_id).exclude(pk=shard.pk)
        if others.exclude(state=State.FINISHED).exists():
            Shard.objects.filter(pk=shard.pk).update(state=State.WAITING)


def _finish_stage(run: Run, stage: Stage, result: dict[str, Any]) -> None:
    stage.result = result
    stages.REGISTRY[stage.kind].on_finished(stage)  # may complete the result
    Stage.objects.filter(pk=stage.pk).update(
        state=State.FINISHED, result=stage.result, done=F("total"), error="", finished_at=Now()
    )
    following = run.stages.filter(state=State.WAITING).order_by("position").first()
    if following is None:
        Run.objects.filter(pk=run.pk).update(state=State.FINISHED, finished_at=Now())
        return
    Stage.objects.filter(pk=following.pk).update(state=State.QUEUED)
    ring_after_commit(following)


def ring_after_commit(stage: Stage) -> None:
    """Wake workers for the stage's shards. A lost ring is the reaper's to make good.

    Workers of the judge queue may not read what its children have to be told, so it is written now.
    """
    if stage.queue == celery.JUDGE:
        stages.write_spec(stage, "cpu")
    count = min(max(stage.shards.exclude(state=State.FINISHED).count(), 1), MAX_RINGS)
    transaction.on_commit(lambda: stages.ring(stage, times=count), robust=True)


def fail_shard(claim: Claim, sentence: str, *, transient: bool, log_tail: str = "") -> None:
    """The shard failed: try again later, or fail the stage and the run with the sentence.

    Raises LeaseLostError.
    """
    with transaction.atomic():
        run = lock_run(claim.run_id)
        shard = _held(claim).select_for_update(no_key=True).first()
        if shard is None:
            raise LeaseLostError("the lease is no longer ours")
        sentence, log_tail = storable(sentence), storable(log_tail)
        if transient and shard.failures + 1 < settings.RETORT_MAX_FAILURES:
            wait = settings.RETORT_RETRY_SECONDS * 2**shard.failures
            Shard.objects.filter(pk=shard.pk).update(
                state=State.QUEUED, lease_token=None, lease_expires_at=None, error=sentence,
                failures=shard.failures + 1,
                not_before=Now() + Value(timedelta(seconds=wait)), updated_at=Now(),
            )  # fmt: skip
            Stage.objects.filter(pk=claim.stage_id).update(log_tail=log_tail)
            return
        fail_run(run, shard, sentence, log_tail)


def fail_run(run: Run, shard: Shard, sentence: str, log_tail: str) -> None:
    """The shard failed for good, and with it its stage and run."""
    Shard.objects.filter(pk=shard.pk).update(
        state=State.FAILED, lease_token=None, lease_expires_at=None, error=sentence,
        updated_at=Now(),
    )  # fmt: skip
    Stage.objects.filter(pk=shard.stage_id).update(
        state=State.FAILED, error=sentence, log_tail=log_tail, finished_at=Now()
    )
    Run.objects.filter(pk=run.pk).update(state=State.FAILED, error=sentence, finished_at=Now())
    cancel_rest(run)


def cancel_rest(run: Run) -> None:
    """Cancel every stage and shard of the run that is not final; their leases are lost."""
    open_states = (State.WAITING, *LIVE)
    run.stages.filter(state__in=open_states).update(state=State.CANCELLED, finished_at=Now())
    Shard.objects.filter(stage__run=run, state__in=open_states).update(
        state=State.CANCELLED, lease_token=None, lease_expires_at=None, updated_at=Now()
    )


def reap() -> list[int]:
    """Ring every stage with a claimable shard and return their ids.

    A shard whose lease ran out too often fails its run: something in it kills the workers.
    """
    live = Shard.objects.filter(_claimable(), stage__state__in=LIVE, stage__run__state__in=LIVE)
    for shard in live.filter(
        state=State.RUNNING, attempts__gte=MAX_LOST + F("failures")
    ).select_related("stage"):
        with transaction.atomic():
            run = lock_run(shard.stage.run_id)
            still = live.filter(pk=shard.pk, state=State.RUNNING).select_for_update(of=["self"])
            if still.exists():
                sentence = (
                    f"Shard {shard.index}: {MAX_LOST} workers vanished while doing it; "
                    "look into their logs (memory?) and retry."
                )
                fail_run(run, shard, sentence, shard.stage.log_tail)
    open_shards = dict(live.values_list("stage_id").annotate(Count("pk")).order_by("stage_id"))
    waiting = list(Stage.objects.filter(pk__in=open_shards).order_by("pk"))
    full = {queue for queue in {stage.queue for stage in waiting} if stages.is_full(queue)}
    for stage in waiting:
        if stage.queue not in full:
            stages.ring(stage, times=min(open_shards[stage.pk], MAX_RINGS))
    return [stage.pk for stage in waiting]

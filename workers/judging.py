"""The judge queue's office: leases through the few functions that its database role may call.

Such a worker reads no table and imports no model's rows: judge.sql lists all it can do. The child's
configuration was written into the stage's folder by whoever queued the stage.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection

from evaluator.store import read_segment
from webapp.config import celery
from webapp.core import store
from webapp.core.text import storable, storable_json
from webapp.runs import files, handover
from webapp.runs.leases import Claim, LeaseLostError
from webapp.runs.ledger import Usage
from webapp.runs.models import Stage


def is_restricted() -> bool:
    """Whether our database role is the judge's, who may not even know who has an account."""
    return not _call("has_table_privilege", "core_user", "SELECT")


def _call(function: str, *arguments: Any) -> Any:
    marks = ", ".join(["%s"] * len(arguments))
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {function}({marks})", arguments)
        row = cursor.fetchone()
    return None if row is None else row[0]


def stage_of(claim: Claim) -> Stage:
    """What there is to know of the claim's stage: where its files are."""
    return Stage(pk=claim.stage_id, run_id=claim.run_id, kind="grade", queue=celery.JUDGE)


def claim(
    worker: str, queues: Sequence[str] = (celery.JUDGE,), *, sticky: int | None = None
) -> Claim | None:
    """Lease the next shard of the judge queue."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT * FROM judge_claim(%s, %s, %s, %s)",
            [worker, settings.RETORT_LEASE_SECONDS, sticky, settings.RETORT_USER_SHARDS],
        )
        row = cursor.fetchone()
    if row is None:
        return None
    shard_id, stage_id, run_id, token, work, accepted = row
    work = json.loads(work) if isinstance(work, str) else work
    _call("judge_started", shard_id, token)
    return Claim(shard_id, stage_id, run_id, token, work, tuple(accepted))


def renew(claim: Claim) -> bool:
    """Prolong the lease; False when it is lost."""
    lease = settings.RETORT_LEASE_SECONDS
    return bool(_call("judge_renew", claim.shard_id, claim.token, lease))


def is_held(claim: Claim) -> bool:
    """Whether the lease still holds."""
    return bool(_call("judge_held", claim.shard_id, claim.token))


def record_usage(claim: Claim, usage: Usage) -> None:
    """Note what the lease has taken so far, for the ledger."""
    _call("judge_usage", claim.shard_id, claim.token, usage.cpu_seconds, usage.cause)


def show_log(claim: Claim, log_tail: str) -> None:
    """A judge's log stays with its worker: the role may write it with a failure only."""


def release_shard(claim: Claim) -> None:
    """Give the shard back untried."""
    _call("judge_release", claim.shard_id, claim.token)


def write_spec(stage: Stage, device: str) -> Path:
    """The configuration that lies there already."""
    return handover.take_spec(stage)


def engine_ready(claim: Claim, engine: Mapping[str, Any]) -> None:
    """Nothing that would have to be kept draws verdicts."""


def add_training_point(claim: Claim, *, step: int, values: Mapping[str, float]) -> None:
    """Nothing is trained here."""


def _hold(held: Any) -> None:
    if not held:
        raise LeaseLostError("the lease is no longer ours")


def record_progress(claim: Claim, *, done: int, total: int, unit: str, tokens: int) -> None:
    """Set the shard's progress."""
    _hold(_call("judge_progress", claim.shard_id, claim.token, done, total))


def accept_segment(claim: Claim, *, name: str, size_bytes: int, sha256: str) -> None:
    """Note a sealed segment; its verdicts are read when the stage is settled."""
    path = files.segments_folder(stage_of(claim)) / Path(name).name
    rows = sum(1 for _ in read_segment(path, sha256=sha256))
    store.publish(store.relative_of(path))
    _hold(_call("judge_accept", claim.shard_id, claim.token, name, sha256, rows, size_bytes))


def finish_shard(claim: Claim, result: Mapping[str, Any]) -> None:
    """The shard is done; somebody else goes on with the run."""
    told = json.dumps(storable_json(dict(result)))
    _hold(_call("judge_finish", claim.shard_id, claim.token, told))
    celery.ask_to_settle()


def fail_shard(claim: Claim, sentence: str, *, transient: bool, log_tail: str = "") -> None:
    """The shard failed: again later, or the run is failed by whoever settles."""
    _hold(
        _call(
            "judge_fail",
            claim.shard_id,
            claim.token,
            storable(sentence),
            transient,
            settings.RETORT_RETRY_SECONDS,
            storable(log_tail),
        )
    )
    celery.ask_to_settle()


def beat(worker: str, host: str, doing: str | None = None) -> None:
    """A sign of life."""
    _call("judge_beat", worker, host, doing)


def forget(worker: str) -> None:
    """The worker has stopped."""
    _call("judge_forget", worker)

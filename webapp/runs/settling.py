"""What finished and failed shards of the judge queue mean for their runs.

Workers of that queue may only say that a shard is finished; here, with the rights of everybody
else, their verdicts are read from the segments and the run goes on. What they delivered is checked
like anything that comes from beside untrusted programs.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from django.db import DataError, transaction

from evaluator.errors import StoreError
from evaluator.records import Outcome
from evaluator.store import read_segment
from webapp.config.celery import JUDGE
from webapp.core.errors import UserError
from webapp.core.text import storable
from webapp.runs import completions, files, leases, stages
from webapp.runs.models import Completion, Segment, Shard, Stage, State

logger = logging.getLogger(__name__)

# What making sense of a segment or of a result raises where they hold anything but verdicts.
_UNUSABLE = (
    StoreError, stages.IncompleteError, UserError, DataError,
    LookupError, TypeError, AttributeError, ArithmeticError, ValueError, RecursionError,
)  # fmt: skip


def settle() -> list[int]:
    """Go on with every stage that waits for it; returns their ids.

    Those are the judge queue's, and others whose last worker died before it could.
    """
    live = Stage.objects.filter(queue=JUDGE, state__in=leases.LIVE, run__state__in=leases.LIVE)
    settled = [pk for pk in live.values_list("pk", flat=True) if _settle(pk)]
    return settled + leases.go_on_with_stalled()


def _settle(stage_id: int) -> bool:
    stage = Stage.objects.select_related("evaluation").get(pk=stage_id)
    if not _brought(stage):
        return False
    with transaction.atomic():
        run = leases.lock_run(stage.run_id)
        stage.refresh_from_db(fields=["state"])
        if run.state not in leases.LIVE or stage.state not in leases.LIVE:
            return False
        failed = stage.shards.filter(state=State.FAILED).order_by("index").first()
        if failed is not None:
            leases.fail_run(run, failed, failed.error, stage.log_tail)
            return True
        if stage.shards.filter(state__in=leases.LIVE).exists():
            return False
        last = stage.shards.filter(state=State.FINISHED).order_by("-index").first()
        if last is None:
            return False
        try:
            with transaction.atomic():
                _take_in(stage)
                leases.advance(run, stage)
        except _UNUSABLE as error:
            told = storable(" ".join(str(error).split())[:500])
            sentence = f"What the judge delivered cannot be used ({told}); retry the run."
            leases.fail_run(run, last, sentence, stage.log_tail)
    return True


def _brought(stage: Stage) -> bool:
    """Have what a whole stage delivered on this host, before its run is locked for long.

    False while it cannot be transferred: that is no fault of the run's, and the next round tries.
    """
    if stage.shards.exclude(state=State.FINISHED).exists():
        return True  # nothing is read
    for name in Segment.objects.filter(shard__stage=stage).values_list("name", flat=True):
        try:
            files.segment_path(stage, name)
        except StoreError as error:
            logger.warning("stage %s waits for its segments: %s", stage.pk, error)
            return False
        except UserError:
            return True  # for good: whoever reads it says so
    return True


def _take_in(stage: Stage) -> None:
    """Set the outcomes that the shards' segments hold, each for its own problems only."""
    for shard in stage.shards.filter(state=State.FINISHED).order_by("index"):
        ids = set(shard.work.get("problem_ids", ()))
        rows = []
        for segment in Segment.objects.filter(shard=shard).order_by("pk"):
            path = files.segment_path(stage, segment.name)
            rows += [row for _, row in read_segment(path, sha256=segment.sha256)]
        if ids:
            rows = [row for row in rows if row["problem_id"] in ids]
        _check_outcomes(rows)
        completions.set_outcomes(stage.evaluation_id, rows)
        stages.check_complete(stage, Shard.objects.get(pk=shard.pk), shard.result)
    # Also of a stage whose only shard names no problems.
    missing = Completion.objects.filter(evaluation=stage.evaluation_id, outcome="").count()
    if missing:
        raise stages.IncompleteError(f"{missing} verdicts are missing.")


def _check_outcomes(rows: Sequence[dict[str, Any]]) -> None:
    """Raise ValueError for a word that is no outcome: counts are kept by those there are."""
    for row in rows:
        if row["outcome"] not in set(Outcome):
            raise ValueError(f"{str(row['outcome'])[:40]!r} is no outcome")

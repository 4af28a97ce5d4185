"""What tests of comparisons share."""

from __future__ import annotations

import uuid

from django.urls import reverse
from django.utils import timezone

from tests.webapp.samples import arithmetic
from webapp.leaderboard import compare
from webapp.runs.models import Evaluation, LedgerEntry

PROBLEMS = arithmetic(30)


def compared(*evaluations: Evaluation, base: int | None = None) -> compare.Comparison:
    """The comparison as their owner sees it."""
    user = evaluations[0].run.owner
    found, gone = compare.find(user, [each.pk for each in evaluations])
    assert not gone
    return compare.compare(found, compare.baseline_of(found, base))


def address(*evaluations: Evaluation, more: str = "") -> str:
    """Of their comparison's page."""
    keys = ",".join(str(each.pk) for each in evaluations)
    return f"{reverse('leaderboard:compare')}?e={keys}{more}"


def spend(evaluation: Evaluation, kind: str, **amounts: float) -> None:
    """One lease of a stage of this evaluation's run took so much."""
    now = timezone.now()
    stage = evaluation.stages.first() if kind == "evaluate" else None
    run = evaluation.run if stage else evaluation.checkpoint.produced_by  # type: ignore[union-attr]
    LedgerEntry.objects.create(
        lease_token=uuid.uuid4(), user=evaluation.run.owner, run=run, stage=stage, kind=kind,
        worker="w", ended="finished", started_at=now, ended_at=now, wall_seconds=1, lost_share=0,
        prompt_tokens=0, completion_tokens=500, asks_endpoint=False,
        **{"device_seconds": 0, "cpu_seconds": 0, **amounts},
    )  # fmt: skip

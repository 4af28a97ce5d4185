"""What takes too long for a request: reports of size, and the score with disputes.

The row is the truth. A worker's thread (``workers/clerk.py``) claims what is due, by the
database's clock, and has a child do it; where the child dies the claim runs out and it is done
again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Now

from webapp.leaderboard import disputes, reports
from webapp.leaderboard.models import DisputedScore, Report

CLAIM_SECONDS = 900  # longer than a child may take
Kind = Literal["report", "disputes"]


@dataclass(frozen=True, slots=True)
class Job:
    """Something due: a report's row, or an evaluation whose disputes changed."""

    kind: Kind
    pk: int


def claim() -> Job | None:
    """Take what has been due longest; None where nothing is."""
    free = Q(claimed_until=None) | Q(claimed_until__lt=Now())
    until = Now() + timedelta(seconds=CLAIM_SECONDS)
    with transaction.atomic():
        score = (
            DisputedScore.objects.select_for_update(skip_locked=True)
            .filter(~Q(wanted=F("scored")) & Q(error="") & free)
            .order_by("pk")
            .first()
        )
        if score is not None:
            DisputedScore.objects.filter(pk=score.pk).update(claimed_until=until)
            return Job("disputes", score.evaluation_id)
        report = (
            Report.objects.select_for_update(skip_locked=True)
            .filter(Q(state=Report.State.QUEUED) & free)
            .order_by("pk")
            .first()
        )
        if report is not None:
            Report.objects.filter(pk=report.pk).update(claimed_until=until)
            return Job("report", report.pk)
    return None


def do(job: Job) -> None:
    """Do it, in this process. Raises what making it raises; :func:`fail` writes that down."""
    if job.kind == "disputes":
        disputes.score(job.pk)
    else:
        reports.make(job.pk)


def fail(job: Job, sentence: str) -> None:
    """Write down why it could not be done; it waits until a person asks again."""
    if job.kind == "disputes":
        DisputedScore.objects.filter(evaluation_id=job.pk).update(
            error=sentence, claimed_until=None
        )
    else:
        Report.objects.filter(pk=job.pk).update(
            state=Report.State.FAILED, error=sentence, claimed_until=None
        )

"""Runs in the sentence of a refusal: named to who sees them, else counted."""

from __future__ import annotations

from django.db.models import QuerySet

from webapp.core.models import User
from webapp.projects.access import seen_by
from webapp.runs.models import Run

_NAMED = 5


def told_runs(reader: User, runs: QuerySet[Run]) -> str:
    """As “a” and “b” and 3 more, the oldest first; blank where there is none."""
    distinct = Run.objects.filter(pk__in=runs.order_by().values("pk"))
    seen = seen_by(reader, distinct).order_by("pk").values_list("name", flat=True)
    told = [f"“{name}”" for name in seen[:_NAMED]]
    if more := distinct.count() - len(told):
        told.append(f"{more} more" if told else f"runs of other projects ({more})")
    return " and ".join(told)

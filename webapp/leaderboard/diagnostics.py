"""Length against correctness, and how completions ended: counted in the database."""

from __future__ import annotations

from collections import defaultdict
from math import exp

from django.contrib.postgres.fields import ArrayField
from django.db.models import (
    Aggregate,
    Avg,
    Count,
    F,
    FloatField,
    Func,
    IntegerField,
    Max,
    Min,
    Q,
    QuerySet,
    Value,
)
from django.db.models.functions import Cast, Ln

from evaluator.diagnostics import (
    Diagnostics,
    Endings,
    LengthBin,
    Lengths,
    alarms,
    length_edges,
)
from evaluator.records import FinishReason, Outcome
from webapp.runs.models import Completion, Evaluation

_RIGHT = Q(outcome=Outcome.CORRECT)
_COUNTED = Q(completion_tokens__isnull=False)
# No completion came, or nobody knows what it is worth.
_ERRORS = [outcome.value for outcome in Outcome if outcome.is_error]


class _Median(Aggregate):
    template = "PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY %(expressions)s)"
    output_field = FloatField()
    name = "Median"


def diagnostics(found: Evaluation) -> Diagnostics | None:
    """Read a graded evaluation's diagnostics in four queries; None before it is graded."""
    if not found.metrics:
        return None
    scored = Completion.objects.filter(evaluation=found).exclude(outcome__in=_ERRORS).order_by()
    cut = Q(finish_reason=FinishReason.LENGTH)
    counts = scored.aggregate(
        completions=Count("pk"),
        cut=Count("pk", filter=cut),
        truncated=Count("pk", filter=Q(outcome=Outcome.TRUNCATED)),
        looped=Count("pk", filter=Q(outcome=Outcome.LOOPED)),
        unknown=Count("pk", filter=Q(finish_reason=FinishReason.UNKNOWN)),
        cut_at_least_tokens=Min("completion_tokens", filter=cut),
        cut_at_most_tokens=Max("completion_tokens", filter=cut),
    )
    endings = Endings(**counts)
    sampling = found.protocol["sampling"]
    return Diagnostics(
        lengths=_lengths(scored, endings.completions),
        alarms=alarms(
            endings,
            max_tokens=sampling["max_tokens"],
            temperature=sampling["temperature"],
            replayed=found.engine.get("name") == "replay",
            context_tokens=found.engine.get("context_tokens"),
        ),
        endings=endings,
    )


def _lengths(scored: QuerySet[Completion], completions: int) -> Lengths:
    counted = scored.filter(_COUNTED)
    extent = counted.aggregate(
        count=Count("pk"),
        shortest=Min("completion_tokens"),
        longest=Max("completion_tokens"),
        median_right=_Median("completion_tokens", filter=_RIGHT),
        median_other=_Median("completion_tokens", filter=~_RIGHT),
    )
    uncounted = completions - extent["count"]
    if not extent["count"]:
        return Lengths(counted=0, uncounted=uncounted)
    mixed, ratio = _within_problems(counted)
    return Lengths(
        counted=extent["count"],
        uncounted=uncounted,
        median_right=extent["median_right"],
        median_other=extent["median_other"],
        bins=_bins(counted, extent["shortest"], extent["longest"]),
        mixed_problems=mixed,
        ratio=ratio,
    )


def _bins(counted: QuerySet[Completion], shortest: int, longest: int) -> list[LengthBin]:
    """Outcomes by length; bins that hold nothing are left out."""
    edges = length_edges(shortest, longest)
    bucket = Func(
        F("completion_tokens"),
        Value(edges, output_field=ArrayField(IntegerField())),
        function="WIDTH_BUCKET",  # i where edges[i − 1] ≤ tokens < edges[i], from 1
        output_field=IntegerField(),
    )
    rows = (
        counted.annotate(bucket=bucket).values_list("bucket", "outcome").annotate(count=Count("pk"))
    )
    by_bucket: dict[int, dict[str, int]] = defaultdict(dict)
    for index, outcome, count in rows:
        by_bucket[index][outcome] = count
    return [
        LengthBin(
            first=edges[index - 1],
            last=edges[index] - 1 if index < len(edges) else longest,
            outcomes=outcomes,
        )
        for index, outcomes in sorted(by_bucket.items())
    ]


def _within_problems(counted: QuerySet[Completion]) -> tuple[int, float | None]:
    """(problems with correct and other samples, how much longer a correct one is there).

    Hard problems are answered at length and wrongly, so lengths over all problems say little of
    what length does; within a problem the difficulty is the same. The ratio is the geometric mean
    over problems of mean length, correct over other.
    """
    figures = (
        counted.values("problem")
        .annotate(
            right=Avg("completion_tokens", filter=_RIGHT),
            other=Avg("completion_tokens", filter=~_RIGHT),
        )
        .filter(right__gt=0, other__gt=0)
        .aggregate(
            problems=Count("problem"),
            log_ratio=Avg(Ln(Cast("right", FloatField())) - Ln(Cast("other", FloatField()))),
        )
    )
    ratio = figures["log_ratio"]
    return figures["problems"], None if ratio is None else exp(ratio)

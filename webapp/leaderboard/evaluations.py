"""What the pages of one evaluation show, read in a bounded number of queries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.db.models import Count, QuerySet

from evaluator import programs_report
from webapp.core.drawing import OUTCOME_WORDS, UNGRADED
from webapp.core.models import User
from webapp.projects.access import seen_by
from webapp.runs.models import Completion, Evaluation


def seen(user: User) -> QuerySet[Evaluation]:
    """The evaluations that the person may look at: those of runs of the projects they see."""
    return seen_by(user, Evaluation.objects.all(), "run__project")


def evaluation(user: User, pk: int) -> Evaluation:
    """One evaluation with its checkpoint, benchmark and run.

    Raises Evaluation.DoesNotExist where there is none that the person may look at.
    """
    return seen(user).select_related("checkpoint__project", "benchmark", "run").get(pk=pk)


def outcome_counts(found: Evaluation) -> dict[str, int]:
    """How many samples became what; sums to the samples asked for once graded."""
    if found.metrics:
        counts: dict[str, int] = found.metrics["outcomes"]
        return {word: counts.get(word, 0) for word in OUTCOME_WORDS if word != UNGRADED}
    counted = (
        Completion.objects.filter(evaluation=found)
        .order_by()
        .values_list("outcome")
        .annotate(count=Count("pk"))
    )
    return {outcome or "ungraded": count for outcome, count in counted}


def sample_rows(found: Evaluation) -> Iterator[dict[str, Any]]:
    """Every sample's figures with its problem's, in the order of problems and samples.

    ``problem_id`` is the problem's own id, as in graded rows everywhere.
    """
    fields = {
        "problem_id": "problem__problem_id", "subject": "problem__subject",
        "level": "problem__level", "sample": "sample", "outcome": "outcome", "answer": "answer",
        "gold": "problem__answer", "reason": "reason", "judged": "judged",
        "finish_reason": "finish_reason", "prompt_tokens": "prompt_tokens",
        "completion_tokens": "completion_tokens",
    }  # fmt: skip
    rows = Completion.objects.filter(evaluation=found).order_by("problem__position", "sample")
    for values in rows.values_list(*fields.values()).iterator(2000):
        yield dict(zip(fields, values, strict=True))


def groups(metrics: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(what is grouped by, figures by group in order); a single group says nothing new."""
    return [
        (name, dict(sorted(figures.items(), key=lambda item: _natural(item[0]))))
        for name, figures in (metrics.get("by") or {}).items()
        if len(figures) > 1
    ]


@dataclass(frozen=True, slots=True)
class Programs:
    """What the judge said of an evaluation's programs, and how they rate."""

    verdicts: list[programs_report.VerdictCount]
    ratings: list[programs_report.RatingRow]
    contests: list[dict[str, Any]]  # evaluator.rating.rate_contests
    notes: list[str]
    unsafe: bool

    @property
    def headline(self) -> programs_report.RatingRow | None:
        """rating@1 by PROTOCOLS' own rule, where there is one."""
        return next((row for row in self.ratings if row.value is not None), None)


def programs(metrics: dict[str, Any]) -> Programs | None:
    """None where the answers are no programs."""
    if "verdicts" not in metrics:
        return None
    return Programs(
        verdicts=programs_report.verdicts(metrics),
        ratings=programs_report.ratings(metrics),
        contests=((metrics.get("rating") or {}).get("elo") or {}).get("contests", []),
        notes=programs_report.notes(metrics),
        unsafe=programs_report.unsafe(metrics),
    )


@dataclass(frozen=True, slots=True)
class Judged:
    """What the judge said of one program; the time and memory are the failing test's, if any."""

    verdict: str
    words: str
    language: str
    passed: int
    tests: int
    test: str  # the failing test's name; blank where none decided
    cpu_seconds: float
    memory_mebibytes: float
    isolation: str


def judged(completion: Completion) -> Judged | None:
    """A completion's judgement; None where it holds no program, or is not judged yet."""
    found = completion.judged
    if not found:
        return None
    test = found["test"] or {}
    used = test or found
    return Judged(
        verdict=found["verdict"],
        words=programs_report.VERDICT_WORDS[found["verdict"]],
        language=found["language"],
        passed=found["passed"],
        tests=found["tests"],
        test=test.get("name", ""),
        cpu_seconds=used["cpu_seconds"],
        memory_mebibytes=used["memory_bytes"] / (1 << 20),
        isolation=found["isolation"],
    )


def _natural(name: str) -> tuple[int, str]:
    """Levels are numbers where they are written as such: 10 after 9."""
    return (int(name), "") if name.isdecimal() else (0, name)

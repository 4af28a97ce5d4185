"""What the pages of one evaluation show, read in a bounded number of queries."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from django.db.models import Count, Q, QuerySet

from evaluator import programs_report
from evaluator.records import Outcome
from webapp.benchmarks.models import Problem
from webapp.core.drawing import OUTCOME_WORDS, UNGRADED
from webapp.runs.models import Completion, Evaluation

PROBLEMS_PER_PAGE = 50
PROBLEM_SORTS = ("position", "hardest", "easiest")


@dataclass(frozen=True, slots=True)
class ProblemRow:
    """One problem's n samples at a glance."""

    problem: Problem
    right: int
    samples: int
    outcomes: list[str] = field(default_factory=list)
    majority: str | None = None

    @property
    def majority_is_right(self) -> bool | None:
        """Whether the largest class of answers is the correct one; None without answers."""
        return None if self.majority is None else self._majority_outcome == Outcome.CORRECT

    _majority_outcome: str = ""


def evaluation(pk: int) -> Evaluation:
    """One evaluation with its checkpoint, benchmark and run; raises Evaluation.DoesNotExist."""
    return Evaluation.objects.select_related("checkpoint", "benchmark", "run").get(pk=pk)


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


def problems(found: Evaluation, sort: str) -> QuerySet[Problem]:
    """The benchmark's problems with ``right``, the number of their correct samples."""
    right = Count(
        "completion",
        filter=Q(completion__evaluation=found, completion__outcome=Outcome.CORRECT.value),
    )
    order = {"hardest": ("right", "position"), "easiest": ("-right", "position")}
    query = Problem.objects.filter(benchmark_id=found.benchmark_id).annotate(right=right)
    return query.order_by(*order.get(sort, ("position",)))


def problem_rows(found: Evaluation, page: list[Problem]) -> list[ProblemRow]:
    """One row per problem of a page: a single query for all their completions."""
    outcomes = {p.pk: [_absent(found)] * found.samples for p in page}
    for problem_id, sample, outcome in Completion.objects.filter(
        evaluation=found, problem__in=page
    ).values_list("problem_id", "sample", "outcome"):
        if sample < found.samples:
            outcomes[problem_id][sample] = outcome
    figures = {row["id"]: row for row in (found.metrics or {}).get("per_problem") or []}
    rows = []
    for problem in page:
        figure: dict[str, Any] = figures.get(problem.problem_id) or {}
        consensus = figure.get("cons")
        rows.append(
            ProblemRow(
                problem=problem,
                right=sum(outcome == Outcome.CORRECT for outcome in outcomes[problem.pk]),
                samples=found.samples,
                outcomes=outcomes[problem.pk],
                majority=figure.get("majority"),
                _majority_outcome=Outcome.CORRECT if consensus else Outcome.WRONG,
            )
        )
    return rows


def _absent(found: Evaluation) -> str:
    """What a sample without a row is: lost once graded, not drawn yet before."""
    return Outcome.ENGINE_ERROR if found.metrics else ""


@dataclass(frozen=True, slots=True)
class ProblemView:
    """One problem, all its samples' figures, and which of them is shown in full."""

    problem: Problem
    completions: list[Completion]
    shown: Completion | None
    outcomes: list[str]
    previous: Problem | None
    following: Problem | None

    @property
    def rows(self) -> list[tuple[Completion, Judged | None]]:
        """Every sample with what the judge said of it."""
        return [(completion, judged(completion)) for completion in self.completions]

    @property
    def are_programs(self) -> bool:
        """Whether the answers are programs."""
        return any(completion.judged for completion in self.completions)

    @property
    def judged(self) -> Judged | None:
        """The judgement of the sample that is shown."""
        return None if self.shown is None else judged(self.shown)

    @property
    def previous_sample(self) -> int | None:
        """The sample before the one shown."""
        return self._neighbour(-1)

    @property
    def next_sample(self) -> int | None:
        """The sample after the one shown."""
        return self._neighbour(1)

    def _neighbour(self, step: int) -> int | None:
        if self.shown is None:
            return None
        at = self.completions.index(self.shown) + step
        return self.completions[at].sample if 0 <= at < len(self.completions) else None


def problem_view(found: Evaluation, problem_pk: int, sample: int | None) -> ProblemView:
    """One problem with its samples; raises Problem.DoesNotExist."""
    siblings = Problem.objects.filter(benchmark_id=found.benchmark_id)
    problem = siblings.get(pk=problem_pk)
    completions = list(
        Completion.objects.filter(evaluation=found, problem=problem)
        .select_related("segment__shard__stage")
        .order_by("sample")
    )
    outcomes = [_absent(found)] * found.samples
    for completion in completions:
        if completion.sample < found.samples:
            outcomes[completion.sample] = completion.outcome
    shown = next((c for c in completions if c.sample == sample), None)
    if shown is None and completions:
        shown = completions[0]
    around = siblings.only("pk", "problem_id", "position", "benchmark_id")
    return ProblemView(
        problem=problem,
        completions=completions,
        shown=shown,
        outcomes=outcomes,
        previous=around.filter(position__lt=problem.position).order_by("-position").first(),
        following=around.filter(position__gt=problem.position).order_by("position").first(),
    )

"""Looking closely: an evaluation's problems, a row each, and one sample with all that is known.

Whatever the size, a page takes a fixed number of queries; texts come in parts.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.core.paginator import Page, Paginator
from django.db.models import Count, Q, QuerySet

from evaluator.records import Outcome
from webapp.benchmarks.models import Problem
from webapp.core.drawing import OUTCOME_WORDS
from webapp.core.models import User
from webapp.leaderboard import passports
from webapp.leaderboard.compare import ERRORS, with_parent
from webapp.leaderboard.evaluations import Judged, judged
from webapp.leaderboard.models import Dispute
from webapp.runs.models import Completion, Evaluation

PROBLEMS_PER_PAGE = 50
# Name in the address → what it says on the page.
SORTS = {
    "position": "in order",
    "hardest": "hardest first",
    "easiest": "easiest first",
    "split": "most divided votes first",
    "change": "largest change first",
}
SHOWS = {
    "": "all",
    "mixed": "right and other samples",
    "outvoted": "right, but outvoted",
    "changed": "changed against the parent",
    "disputed": "disputed",
} | {str(outcome): f"with {OUTCOME_WORDS[outcome]}" for outcome in Outcome}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a person asked to see; anything unknown stands for the default."""

    sort: str = "position"
    show: str = ""
    subject: str = ""
    level: str = ""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Wanted:
        """Read an address' query."""
        sort, show = query.get("sort", ""), query.get("show", "")
        return cls(
            sort=sort if sort in SORTS else "position",
            show=show if show in SHOWS else "",
            subject=query.get("subject", "")[:100],
            level=query.get("level", "")[:30],
        )


@dataclass(slots=True)
class ProblemRow:
    """One problem's n samples at a glance."""

    pk: int
    problem_id: str
    position: int
    subject: str
    level: str
    samples: int
    counts: Mapping[str, int]  # outcome → samples
    majority: str | None = None
    votes: int | None = None
    consensus: float | None = None
    scored: int = 0
    before: float | None = None  # the parent's share of right samples
    disputed: int = 0
    outcomes: tuple[str, ...] = ()
    gold: str = ""

    @property
    def right(self) -> int:
        """Correct samples."""
        return self.counts.get(str(Outcome.CORRECT), 0)

    @property
    def share(self) -> float | None:
        """Of the scored samples, those that are right."""
        return self.right / self.scored if self.scored else None

    @property
    def change(self) -> float | None:
        """Share of right samples less the parent's, in [−1, 1]."""
        return None if self.share is None or self.before is None else self.share - self.before

    @property
    def vote_share(self) -> float | None:
        """Of the scored samples, those that gave the majority answer."""
        return self.votes / self.scored if self.votes is not None and self.scored else None

    @property
    def majority_word(self) -> str:
        """Whether the majority answer is the right one."""
        if self.majority is None or self.consensus is None:
            return ""
        if self.consensus in (0, 1):
            return "right" if self.consensus else "wrong"
        return "tied"


@dataclass(frozen=True, slots=True)
class ProblemTable:
    """A page of rows, and what can be chosen."""

    rows: list[ProblemRow]
    page: Page[ProblemRow]
    wanted: Wanted
    parent: Evaluation | None
    parent_differs: tuple[str, ...] | None  # fields measured otherwise; None where measured alike
    total: int
    subjects: list[str]
    levels: list[str]
    shows: dict[str, str]
    sorts: dict[str, str]


def problem_table(user: User, found: Evaluation, wanted: Wanted, page: str | None) -> ProblemTable:
    """The evaluation's problems as asked for, in six queries.

    They are set against the parent's where the person may look at that.
    """
    parent = next(iter(with_parent(user, found)), None)
    parent = None if parent is None or parent.pk == found.pk else parent
    rows = _rows(found, parent)
    subjects = sorted({row.subject for row in rows if row.subject})
    levels = sorted({row.level for row in rows if row.level}, key=_natural)
    chosen = [row for row in rows if _is_wanted(row, wanted)]
    chosen.sort(key=lambda row: _place(row, wanted.sort))
    shown = Paginator(chosen, PROBLEMS_PER_PAGE).get_page(page)
    found_outcomes = {str(o) for row in rows for o, count in row.counts.items() if count}
    hidden = {str(outcome) for outcome in Outcome} - found_outcomes
    if parent is None:
        hidden.add("changed")
    if not any(row.disputed for row in rows):
        hidden.add("disputed")
    return ProblemTable(
        rows=_with_cells(found, list(shown)),
        page=shown,
        wanted=wanted,
        parent=parent,
        parent_differs=_differing(found, parent),
        total=len(rows),
        subjects=subjects if len(subjects) > 1 else [],
        levels=levels if len(levels) > 1 else [],
        shows={key: word for key, word in SHOWS.items() if key not in hidden},
        sorts={k: w for k, w in SORTS.items() if parent is not None or k != "change"},
    )


def _differing(found: Evaluation, parent: Evaluation | None) -> tuple[str, ...] | None:
    fields = None if parent is None else passports.differing(found, parent)
    return None if fields is None else tuple(fields)


def _rows(found: Evaluation, parent: Evaluation | None) -> list[ProblemRow]:
    counts: dict[int, Counter[str]] = defaultdict(Counter)
    tallied = Completion.objects.filter(evaluation=found).order_by()
    for problem, outcome, count in tallied.values_list("problem_id", "outcome").annotate(
        count=Count("pk")
    ):
        counts[problem][outcome] = count
    figures = {row["id"]: row for row in (found.metrics or {}).get("per_problem") or []}
    theirs = {} if parent is None else {
        row["id"]: row["correct"] / row["n"]
        for row in (parent.metrics or {}).get("per_problem") or []
        if row["n"]
    }  # fmt: skip
    disputed = Counter(
        Dispute.objects.filter(evaluation=found, withdrawn_at=None).values_list(
            "problem_id", flat=True
        )
    )
    rows = []
    for pk, problem_id, position, subject, level in Problem.objects.filter(
        benchmark_id=found.benchmark_id
    ).values_list("pk", "problem_id", "position", "subject", "level"):
        figure: dict[str, Any] = figures.get(problem_id) or {}
        rows.append(
            ProblemRow(
                pk=pk, problem_id=problem_id, position=position, subject=subject, level=level,
                samples=found.samples, counts=_whole(found, counts[pk]),
                majority=figure.get("majority"), votes=figure.get("votes"),
                consensus=figure.get("cons"), scored=figure.get("n", _scored(counts[pk])),
                before=theirs.get(problem_id), disputed=disputed[pk],
            )
        )  # fmt: skip
    return rows


def _scored(counts: Mapping[str, int]) -> int:
    """Samples with a verdict, of an evaluation that is not graded as a whole yet."""
    return sum(count for outcome, count in counts.items() if outcome and outcome not in ERRORS)


def _whole(found: Evaluation, counts: Counter[str]) -> Counter[str]:
    """Samples without a row are lost once graded: they count as engine errors."""
    if found.metrics and (lost := found.samples - counts.total()) > 0:
        counts[str(Outcome.ENGINE_ERROR)] += lost
    return counts


def _is_wanted(row: ProblemRow, wanted: Wanted) -> bool:
    shown = {
        "": True,
        "mixed": 0 < row.right < row.samples,
        "outvoted": bool(row.right) and row.majority_word == "wrong",
        "changed": bool(row.change),
        "disputed": bool(row.disputed),
    }.get(wanted.show, row.counts.get(wanted.show, 0) > 0)
    return shown and wanted.subject in ("", row.subject) and wanted.level in ("", row.level)


def _place(row: ProblemRow, sort: str) -> tuple[float, int]:
    """Where a row stands; what is undefined stands last."""
    key: float | None = 0.0
    match sort:
        case "hardest":
            key = row.share
        case "easiest":
            key = None if row.share is None else -row.share
        case "split":
            key = row.vote_share
        case "change":
            key = None if row.change is None else -abs(row.change)
    return (float("inf") if key is None else float(key), row.position)


def _with_cells(found: Evaluation, rows: list[ProblemRow]) -> list[ProblemRow]:
    """The page's rows with each sample's outcome and the reference answer."""
    absent = str(Outcome.ENGINE_ERROR) if found.metrics else ""
    keys = [row.pk for row in rows]
    cells = {pk: [absent] * found.samples for pk in keys}
    for problem, sample, outcome in Completion.objects.filter(
        evaluation=found, problem__in=keys
    ).values_list("problem_id", "sample", "outcome"):
        if sample < found.samples:
            cells[problem][sample] = outcome
    gold = dict(Problem.objects.filter(pk__in=keys).values_list("pk", "answer"))
    for row in rows:
        row.outcomes, row.gold = tuple(cells[row.pk]), gold[row.pk]
    return rows


def _natural(name: str) -> tuple[int, str]:
    """Levels are numbers where they are written as such: 10 after 9."""
    return (int(name), "") if name.isdecimal() else (0, name)


# --- one sample

Key = tuple[int, int]  # (problem's primary key, sample)


@dataclass(frozen=True)
class SampleView:
    """One problem, all its samples' figures, and which of them is shown in full."""

    evaluation: Evaluation
    problem: Problem
    completions: list[Completion]
    shown: Completion | None
    disputes: dict[int, Dispute]  # the open ones, by sample

    @cached_property
    def outcomes(self) -> list[str]:
        """Each sample's outcome, in order."""
        absent = str(Outcome.ENGINE_ERROR) if self.evaluation.metrics else ""
        outcomes = [absent] * self.evaluation.samples
        for each in self.completions:
            if each.sample < len(outcomes):
                outcomes[each.sample] = each.outcome
        return outcomes

    @cached_property
    def right(self) -> int:
        """Correct samples."""
        return sum(outcome == Outcome.CORRECT for outcome in self.outcomes)

    @cached_property
    def rows(self) -> list[tuple[Completion, Judged | None, Dispute | None]]:
        """Every sample with what the judge said of it and whether it is disputed."""
        return [(each, judged(each), self.disputes.get(each.sample)) for each in self.completions]

    @cached_property
    def are_programs(self) -> bool:
        """Whether the answers are programs."""
        return any(each.judged for each in self.completions)

    @cached_property
    def judged(self) -> Judged | None:
        """The judgement of the sample that is shown."""
        return None if self.shown is None else judged(self.shown)

    @cached_property
    def dispute(self) -> Dispute | None:
        """The open dispute of the sample that is shown."""
        return None if self.shown is None else self.disputes.get(self.shown.sample)

    @cached_property
    def alike(self) -> int:
        """How many other samples of the problem have the same answer and outcome."""
        if self.shown is None or self.shown.answer is None:
            return 0
        same = (self.shown.answer, self.shown.outcome)
        return sum((each.answer, each.outcome) == same for each in self.completions) - 1

    @cached_property
    def around(self) -> dict[str, Key | None]:
        """The samples before and after the shown one, across problems; and those not correct."""
        if self.shown is None:
            return {}
        everything = Completion.objects.filter(evaluation=self.evaluation)
        others = everything.exclude(outcome__in=["", Outcome.CORRECT])
        at = [each.sample for each in self.completions].index(self.shown.sample)
        before = self.completions[at - 1] if at else None
        after = self.completions[at + 1] if at + 1 < len(self.completions) else None
        return {
            "previous": (self.problem.pk, before.sample) if before else self._next(everything, -1),
            "next": (self.problem.pk, after.sample) if after else self._next(everything, 1),
            "previous_wrong": self._next(others, -1),
            "next_wrong": self._next(others, 1),
        }

    def _next(self, among: QuerySet[Completion], step: int) -> Key | None:
        assert self.shown is not None
        here, sample = self.problem.position, self.shown.sample
        if step > 0:
            beyond = Q(problem__position__gt=here) | Q(problem=self.problem, sample__gt=sample)
            order = ("problem__position", "sample")
        else:
            beyond = Q(problem__position__lt=here) | Q(problem=self.problem, sample__lt=sample)
            order = ("-problem__position", "-sample")
        return among.filter(beyond).order_by(*order).values_list("problem_id", "sample").first()


def sample_view(found: Evaluation, problem_pk: int, sample: int | None) -> SampleView:
    """One problem with its samples; the first one where the asked-for one does not exist.

    Raises Problem.DoesNotExist.
    """
    problem = Problem.objects.filter(benchmark_id=found.benchmark_id).get(pk=problem_pk)
    completions = list(
        Completion.objects.filter(evaluation=found, problem=problem)
        .select_related("segment__shard__stage")
        .order_by("sample")
    )
    shown = next((each for each in completions if each.sample == sample), None)
    if shown is None and completions:
        shown = completions[0]
    disputes = Dispute.objects.filter(evaluation=found, problem=problem, withdrawn_at=None)
    return SampleView(
        evaluation=found,
        problem=problem,
        completions=completions,
        shown=shown,
        disputes={each.sample: each for each in disputes.select_related("author")},
    )

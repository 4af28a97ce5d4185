"""One problem's samples in several evaluations, with one text of each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from evaluator.errors import StoreError
from webapp.benchmarks.models import Problem
from webapp.runs import files
from webapp.runs.models import Completion, Evaluation
from webapp.runs.texts import TextView

TEXT_CHARACTERS = 20_000  # of the thinking and of the answer part, each; the sample's page has all


@dataclass(frozen=True, slots=True)
class Column:
    """One evaluation's samples of the problem, and the text of the one that is shown."""

    evaluation: Evaluation
    letter: str
    problem: Problem | None  # None where its benchmark does not hold the problem
    outcomes: list[str]
    shown: Completion | None = None
    text: TextView | None = None
    cut: bool = False  # the text is longer than what is shown
    missing: str = ""  # why there is no text

    @property
    def number(self) -> int:
        """1 for A: the class of its colour."""
        return ord(self.letter) - ord("A") + 1

    @property
    def right(self) -> int:
        """How many samples are correct."""
        return self.outcomes.count("correct")

    @property
    def previous_sample(self) -> int | None:
        """The sample before the one shown."""
        return self.shown.sample - 1 if self.shown and self.shown.sample else None

    @property
    def next_sample(self) -> int | None:
        """The sample after the one shown."""
        if self.shown is None or self.shown.sample + 1 >= len(self.outcomes):
            return None
        return self.shown.sample + 1


@dataclass(frozen=True, slots=True)
class View:
    """The problem, and a column for each evaluation."""

    problem: Problem
    columns: list[Column]
    previous: Problem | None
    following: Problem | None


def view(
    evaluations: Sequence[Evaluation],
    baseline: Evaluation,
    problem_pk: int,
    samples: Mapping[str, int],
) -> View:
    """The problem of the baseline's benchmark; ``samples`` names the sample shown by letter.

    Without a name it is the first. Raises Problem.DoesNotExist.
    """
    siblings = Problem.objects.filter(benchmark_id=baseline.benchmark_id)
    problem = siblings.get(pk=problem_pk)
    alike = Problem.objects.filter(
        benchmark__in={each.benchmark_id for each in evaluations}, content_hash=problem.content_hash
    ).order_by("-position")
    held = {each.benchmark_id: each for each in alike} | {problem.benchmark_id: problem}
    columns = _columns(evaluations, held)
    around = siblings.only("pk", "problem_id", "position", "benchmark_id")
    return View(
        problem=problem,
        columns=_with_texts(columns, samples),
        previous=around.filter(position__lt=problem.position).order_by("-position").first(),
        following=around.filter(position__gt=problem.position).order_by("position").first(),
    )


def _columns(evaluations: Sequence[Evaluation], held: Mapping[int, Problem]) -> list[Column]:
    """Every evaluation's outcomes of the problem: one query."""
    outcomes: dict[int, dict[int, str]] = defaultdict(dict)
    pks = [problem.pk for problem in held.values()]
    rows = Completion.objects.filter(evaluation__in=evaluations, problem__in=pks).order_by()
    own = {each.pk: held[each.benchmark_id].pk for each in evaluations if each.benchmark_id in held}
    for evaluation, problem, sample, outcome in rows.values_list(
        "evaluation_id", "problem_id", "sample", "outcome"
    ):
        if own.get(evaluation) == problem:
            outcomes[evaluation][sample] = outcome
    return [
        Column(
            evaluation=each,
            letter=chr(ord("A") + place),
            problem=held.get(each.benchmark_id),
            outcomes=[outcomes[each.pk].get(sample, "") for sample in range(each.samples)],
        )
        for place, each in enumerate(evaluations)
    ]


def _with_texts(columns: Sequence[Column], samples: Mapping[str, int]) -> list[Column]:
    """The columns with the texts of the samples that are shown: one query."""
    wanted = {
        (column.evaluation.pk, column.problem.pk): min(
            samples.get(column.letter, 0), max(len(column.outcomes) - 1, 0)
        )
        for column in columns
        if column.problem is not None
    }
    found = {
        (each.evaluation_id, each.problem_id): each
        for each in Completion.objects.filter(
            evaluation__in=[evaluation for evaluation, _ in wanted],
            problem__in=[problem for _, problem in wanted],
            sample__in=set(wanted.values()),
        ).select_related("segment__shard__stage")
        if wanted.get((each.evaluation_id, each.problem_id)) == each.sample
    }
    return [
        _with_text(column, found.get((column.evaluation.pk, column.problem.pk)))
        if column.problem is not None
        else replace(column, missing="Its benchmark does not hold this problem.")
        for column in columns
    ]


def _with_text(column: Column, shown: Completion | None) -> Column:
    if shown is None:
        return replace(column, missing="This sample has not been drawn.")
    try:
        row = files.completion_text(shown)
    except (StoreError, OSError) as error:
        return replace(column, shown=shown, missing=f"The text cannot be read: {error}")
    text = TextView.of(row, column.evaluation.protocol["thinking"])
    short = replace(
        text, thinking=text.thinking[:TEXT_CHARACTERS], answer=text.answer[:TEXT_CHARACTERS]
    )
    return replace(column, shown=shown, text=short, cut=short != text)

"""The per-problem part of a comparison: one row a problem, one cell an evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean

from evaluator import benchmarks
from evaluator.errors import InputError
from evaluator.spreadsheet import Cell, csv_text
from webapp.benchmarks.models import Problem
from webapp.leaderboard.compare import Comparison, Key, ProblemRef, Score, Side, Tally

ROWS_PER_PAGE = 30  # all of AIME, and of up to eight evaluations still a light page
SHOWS = ("all", "changes", "wins", "losses")
SORTS = ("position", "gain", "loss", "hardest")


@dataclass(frozen=True, slots=True)
class CellView:
    """One evaluation's samples of one problem. Shares are in [0, 1]."""

    side: Side
    tally: Tally | None  # None where an incomplete evaluation has not drawn it
    majority: str | None  # an answer of the largest class of equivalent ones
    votes: int | None  # samples in that class
    majority_right: bool | None
    change: float | None  # of the share right, against the baseline; None for the baseline

    @property
    def vote_share(self) -> float | None:
        """Of the scored samples, those that voted with the majority."""
        if self.votes is None or self.tally is None or not self.tally.scored:
            return None
        return self.votes / self.tally.scored


@dataclass(frozen=True, slots=True)
class Row:
    """One problem in all the evaluations."""

    key: Key
    problem: ProblemRef
    cells: list[CellView]
    gold: str = ""

    @property
    def changes(self) -> list[float]:
        """Every other side's change against the baseline."""
        return [cell.change for cell in self.cells if cell.change is not None]


def rows(found: Comparison, show: str = "all", sort: str = "position") -> list[Row]:
    """The shared problems that ``show`` keeps, without texts; see :func:`with_gold`."""
    made = [_row(found, key, ref) for key, ref in found.problems]
    kept = [row for row in made if _keeps(row, show)]
    if sort == "gain":
        kept.sort(key=lambda row: -max(row.changes, default=0.0))
    elif sort == "loss":
        kept.sort(key=lambda row: min(row.changes, default=0.0))
    elif sort == "hardest":
        kept.sort(key=_mean_share)
    return kept


def _mean_share(row: Row) -> float:
    """Right out of the scored ones, over who scored it; a problem that nobody did comes last."""
    shares = [cell.tally.share for cell in row.cells if cell.tally is not None]
    known = [share for share in shares if share is not None]
    return mean(known) if known else math.inf


def _keeps(row: Row, show: str) -> bool:
    match show:
        case "changes":
            return any(row.changes)
        case "wins":
            return any(change > 0 for change in row.changes)
        case "losses":
            return any(change < 0 for change in row.changes)
    return True


def _row(found: Comparison, key: Key, ref: ProblemRef) -> Row:
    base = found.baseline.tallies[key].share
    return Row(key, ref, [_cell(side, side.tallies.get(key), base) for side in found.sides])


def _cell(side: Side, tally: Tally | None, base: float | None) -> CellView:
    if tally is None:
        return CellView(side, None, None, None, None, None)
    figure = side.figures.get(tally.problem.problem_id) or {}
    majority, consensus = figure.get("majority"), figure.get("cons")
    share = tally.share
    return CellView(
        side=side,
        tally=tally,
        majority=majority,
        votes=figure.get("votes"),
        majority_right=None if majority is None else bool(consensus),
        change=None if side.is_baseline or share is None or base is None else share - base,
    )


def with_gold(page: Sequence[Row]) -> list[Row]:
    """The rows of one page with their reference answers: one query."""
    answers = dict(
        Problem.objects.filter(pk__in=[row.problem.pk for row in page]).values_list("pk", "answer")
    )
    return [Row(row.key, row.problem, row.cells, answers[row.problem.pk]) for row in page]


def as_csv(found: Comparison) -> str:
    """Every shared problem, a block of columns for each evaluation; a change is in points.

    Answers of a benchmark whose texts may not be put in the open are left out.
    """
    private = any(_is_private(side.evaluation.benchmark.name) for side in found.sides)
    header = ["problem", "subject", "level"] + ([] if private else ["reference"])
    for side in found.sides:
        name = f"{side.letter} {side.name}"
        header += [f"{name}: right", f"{name}: scored", f"{name}: change in points"]
        header += [] if private else [f"{name}: majority"]
    return csv_text(header, _lines(with_gold(rows(found)), private=private))


def _lines(found: Sequence[Row], *, private: bool) -> Iterator[list[Cell]]:
    for row in found:
        line: list[Cell] = [row.problem.problem_id, row.problem.subject, row.problem.level]
        line += [] if private else [row.gold]
        for cell in row.cells:
            change = None if cell.change is None else round(100 * cell.change, 6)
            tally = cell.tally
            line += [tally.correct if tally else None, tally.scored if tally else None, change]
            line += [] if private else [cell.majority]
        yield line


def _is_private(benchmark: str) -> bool:
    try:
        return benchmarks.get(benchmark).private
    except InputError:
        return False


def differences_csv(found: Comparison) -> str:
    """The scores and their differences against the baseline, in points."""
    header = [
        "letter", "checkpoint", "benchmark", "baseline", "problems", "samples", "pass@1", "low",
        "high", "difference", "difference low", "difference high", "p", "p (Holm)",
        "smallest resolvable", "wins", "losses", "tokens per completion", "measurement hash",
        "evaluation",
    ]  # fmt: skip
    return csv_text(header, [_line(found, score) for score in found.scores])


def _line(found: Comparison, score: Score) -> list[Cell]:
    evaluation, contrast = score.side.evaluation, score.contrast
    compared: list[Cell] = [None] * 8
    if contrast is not None:
        paired = contrast.paired
        compared = [
            *map(_points, (paired.difference, paired.low, paired.high)), paired.p, contrast.p_holm,
            _points(paired.resolvable), contrast.wins, contrast.losses,
        ]  # fmt: skip
    return [
        score.side.letter, score.side.name, evaluation.benchmark.name,
        "yes" if score.side.is_baseline else "", len(found.problems), evaluation.samples,
        *map(_points, (score.value, score.low, score.high)), *compared, score.tokens,
        evaluation.measurement_hash, evaluation.pk,
    ]  # fmt: skip


def _points(share: float | None) -> float | None:
    return None if share is None else 100 * share

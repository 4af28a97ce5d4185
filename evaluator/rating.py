"""The Codeforces rating of a model (PROTOCOLS §4). Pure functions; docs/rating.md explains them.

Ratings are Elo points. In a contest of M rated participants with ratings r_1 … r_M before it, the
expected place of a contestant rated r is seed(r) = 1 + Σ_j 1/(1 + 10^((r − r_j)/400)) (Mirzayanov
2015, "Open Codeforces Rating System"); the performance at a place is the r that has it as seed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from evaluator.contests import Array, Contest, Population, Scoring, Standings
from evaluator.errors import InputError
from evaluator.statistics import t_quantile

ELO_SCALE = 400.0  # rating difference at which the odds are 10 : 1
CEILING_MARGIN = 100.0  # how far above the best participant a performance may lie
TOLERANCE = 1e-6  # Elo points; where bisection ends
REJECTION_POINTS = 50.0  # lost per rejected attempt at a problem that is solved in the end
REJECTION_MINUTES = 10.0  # penalty of the same under ICPC scoring
CODEELO_SMALLEST = 200  # CodeElo drops contests with so many rated participants or fewer
ATTEMPTS = 8  # of rating@8
CONFIDENCE = 0.95
_ROUNDING = 1e-9  # of a sum of probabilities


class Mode(StrEnum):
    """``elo``: PROTOCOLS §4's rule. ``codeelo``: QwenLM/CodeElo's, to stand beside its figures."""

    ELO = "elo"
    CODEELO = "codeelo"


@dataclass(frozen=True, slots=True)
class Performance:
    """What one contest says; ``clamped`` where no rating in range has this place."""

    place: int
    rating: float
    clamped: bool


@dataclass(frozen=True, slots=True)
class Rating:
    """Mean performance over contests, with the ends of a t interval (None where undefined)."""

    value: float
    low: float | None
    high: float | None
    contests: int
    clamped: float  # share of the contests' probability mass that was clamped, in [0, 1]


class Field:
    """The participants whom a model is ranked among: their ratings before the contest."""

    def __init__(self, ratings: Array) -> None:
        if not len(ratings):
            raise ValueError("a field needs at least one participant")
        # Ratings are whole numbers, so that 15,000 participants have about 2,000 distinct ones.
        self._ratings, self._counts = np.unique(ratings, return_counts=True)
        self.best = float(self._ratings[-1])
        self.size = len(ratings)

    def seed(self, rating: float) -> float:
        """Expected place of a newcomer with ``rating``: in (1, M + 1), falling with it."""
        # 10^±20 bounds the odds: beyond 8,000 points they are 0 or 1 in double precision anyway.
        exponent = np.clip((rating - self._ratings) / ELO_SCALE, -20.0, 20.0)
        return 1.0 + float(self._counts @ (1.0 / (1.0 + np.power(10.0, exponent))))

    def performance(self, place: int) -> tuple[float, bool]:
        """(rating with seed ``place``, clamped?) by bisection on [0, best rating + 100].

        At a place whose rating lies outside it is the nearer end, marked. Place 1 and place M + 1
        have no finite rating: their marks are certain. Never rises with ``place``.
        """
        low, high = 0.0, max(0.0, self.best + CEILING_MARGIN)
        if self.seed(high) > place or place <= 1:
            return high, True
        if self.seed(low) < place or place > self.size:
            return low, True
        while high - low > TOLERANCE:
            middle = (low + high) / 2
            if self.seed(middle) < place:
                high = middle
            else:
                low = middle
        return (low + high) / 2, False

    def codeelo_performance(self, rank: int) -> tuple[int, bool]:
        """(rating, clamped?) as CodeElo's ``calc_rating``: integers on [0, best rating + 100).

        It is the largest whole rating found whose seed is not below ``rank``. Below
        everybody (``rank`` M) it is finite, and marked all the same: whoever is weaker has it too.
        """
        low, high = 0, max(0, int(self.best)) + int(CEILING_MARGIN)
        ceiling = high
        while high - low > 1:
            middle = (low + high) // 2
            if self.seed(middle) < rank:
                high = middle
            else:
                low = middle
        at_floor = low == 0 and self.seed(0) < rank
        return low, at_floor or high == ceiling or rank >= self.size


def rate(
    standings: Standings, points: float, penalty: float, *, mode: Mode = Mode.ELO
) -> Performance:
    """Rank (points, penalty) among the participants and find the performance of that place.

    ``elo``: place = 1 + better + tied, for Codeforces gives tied contestants the worst place of the
    tie. ``codeelo``: better + tied, CodeElo's count of the humans at or above the model. Raises
    InputError where CodeElo would drop the contest.
    """
    return _Ranker(standings, mode).rate(points, penalty)


class _Ranker:
    """``rate`` for one contest and many scores; each score is rated once."""

    def __init__(self, standings: Standings, mode: Mode) -> None:
        if mode is Mode.CODEELO and len(standings) <= CODEELO_SMALLEST:
            raise InputError(
                f"mode: codeelo drops contests of {CODEELO_SMALLEST} rated participants or fewer, "
                f"and this one has {len(standings)}; use mode elo."
            )
        self._standings, self._mode = standings, mode
        self._field = Field(standings.ratings)
        self._known: dict[int, Performance] = {}

    def rate(self, points: float, penalty: float) -> Performance:
        better, tied = self._standings.better_and_tied(points, penalty)
        place = better + tied + (self._mode is Mode.ELO)
        if place not in self._known:
            found: tuple[float, bool] = (
                self._field.performance(place)
                if self._mode is Mode.ELO
                else self._field.codeelo_performance(place)
            )
            self._known[place] = Performance(place, *found)
        return self._known[place]


@dataclass(frozen=True, slots=True)
class ContestRating:
    """One contest's contribution: an expectation for rating@1, one performance for rating@8."""

    contest: str
    rating: float
    place: float
    clamped: float  # probability, in [0, 1]


Attempts = Mapping[str, Sequence[bool]]  # problem index -> was sample s accepted, in sample order


def rating_at_1(contest: Contest, attempts: Attempts, *, mode: Mode = Mode.ELO) -> ContestRating:
    """Expected performance when each problem gets one attempt, drawn from its samples.

    Exact: the mean over every choice of one sample per problem, by convolution of the scores'
    distributions. A problem without samples counts as not solved. Raises InputError as
    :func:`score_of` does.
    """
    scoring = _check(contest, attempts)
    law: dict[tuple[float, float], float] = {(0.0, 0.0): 1.0}
    for problem in contest.problems:
        samples = attempts.get(problem.index, ())
        solved = sum(samples) / len(samples) if samples else 0.0
        worth = _worth(scoring, problem.points, 0)
        after: dict[tuple[float, float], float] = {}
        for score, probability in law.items():
            for gain, chance in (((0.0, 0.0), 1.0 - solved), (worth, solved)):
                if chance:
                    key = (score[0] + gain[0], score[1] + gain[1])
                    after[key] = after.get(key, 0.0) + probability * chance
        law = after
    ranker = _Ranker(contest.standings, mode)
    rated = [(probability, ranker.rate(*score)) for score, probability in law.items()]
    return ContestRating(
        contest.id,
        rating=math.fsum(p * each.rating for p, each in rated),
        place=math.fsum(p * each.place for p, each in rated),
        clamped=min(1.0, math.fsum(p for p, each in rated if each.clamped)),
    )


def rating_at_8(
    contest: Contest, attempts: Attempts, *, mode: Mode = Mode.ELO
) -> ContestRating | None:
    """Performance when samples, in order, are the attempts: at most 8, stopping at the first AC.

    None where a problem with samples has fewer than 8 of them and none is accepted: what the rest
    would have been is not known. Raises InputError as :func:`score_of` does.
    """
    if any(0 < len(tried) < ATTEMPTS and not any(tried) for tried in attempts.values()):
        return None
    found = rate(contest.standings, *score_of(contest, attempts), mode=mode)
    return ContestRating(contest.id, found.rating, float(found.place), float(found.clamped))


def score_of(contest: Contest, attempts: Attempts) -> tuple[float, float]:
    """(points, penalty minutes) of up to 8 attempts per problem, none after the first AC.

    Every attempt before the accepted one is a rejection: 50 points less, not below 0, or 10 minutes
    of penalty. Time is not counted: the model submits at minute 0. Raises InputError for an unknown
    problem and for standings without problems.
    """
    scoring = _check(contest, attempts)
    points = penalty = 0.0
    for problem in contest.problems:
        tried = list(attempts.get(problem.index, ()))[:ATTEMPTS]
        if any(tried):
            gain = _worth(scoring, problem.points, tried.index(True))
            points, penalty = points + gain[0], penalty + gain[1]
    return points, penalty


def mean_rating(contests: Iterable[ContestRating]) -> Rating | None:
    """Mean over contests and its 95 % t interval; None without a contest.

    No ends for one contest, and none where every performance was clamped: the ends of the range
    agree well with each other, and say nothing of the model.
    """
    rows = list(contests)
    if not rows:
        return None
    values = [row.rating for row in rows]
    count, mean = len(values), math.fsum(values) / len(values)
    clamped = math.fsum(row.clamped for row in rows) / count
    low = high = None
    if count > 1 and clamped < 1 - _ROUNDING:
        spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
        reach = t_quantile(0.5 + CONFIDENCE / 2, count - 1) * spread / math.sqrt(count)
        low, high = mean - reach, mean + reach
    return Rating(mean, low, high, count, clamped)


def rate_contests(
    contests: Sequence[Contest],
    attempts: Mapping[str, Attempts],
    *,
    mode: Mode = Mode.ELO,
    population: Population | None = None,
) -> dict[str, Any]:
    """Both ratings over contest bundles, as plain JSON values for metrics.json and pages.

    ``attempts`` maps contest ids to :data:`Attempts`; contests without an entry are left out, and
    so are those that CodeElo drops, in its mode. A rating that is undefined is null.
    """
    used = [
        contest
        for contest in contests
        if contest.id in attempts
        and (mode is Mode.ELO or len(contest.standings) > CODEELO_SMALLEST)
    ]
    ones = [rating_at_1(contest, attempts[contest.id], mode=mode) for contest in used]
    eights = [rating_at_8(contest, attempts[contest.id], mode=mode) for contest in used]
    known = [each for each in eights if each is not None]
    return {
        "mode": str(mode),
        "population": population and {"name": population.name, "size": len(population.ratings)},
        "rating@1": _rating_json(mean_rating(ones), population),
        "rating@8": _rating_json(
            mean_rating(known) if len(known) == len(used) else None, population
        ),
        "contests": [
            {
                "id": contest.id,
                "name": contest.name,
                "participants": len(contest.standings),
                "rating@1": one.rating,
                "rating@8": None if eight is None else eight.rating,
                "clamped@1": one.clamped,
                "clamped@8": None if eight is None else eight.clamped,
                "unsampled_problems": [
                    problem.index
                    for problem in contest.problems
                    if not attempts[contest.id].get(problem.index)
                ],
            }
            for contest, one, eight in zip(used, ones, eights, strict=True)
        ],
    }


def _worth(scoring: Scoring, points: float | None, rejected: int) -> tuple[float, float]:
    """(points, penalty) that a problem brings when it is solved after ``rejected`` rejections."""
    if scoring is Scoring.ICPC:
        return 1.0, REJECTION_MINUTES * rejected
    assert points is not None, "a problem scored by points has them"
    return max(0.0, points - REJECTION_POINTS * rejected), 0.0


def _check(contest: Contest, attempts: Attempts) -> Scoring:
    if contest.scoring is None or not contest.problems:
        raise InputError(
            f"contest {contest.id}: its file holds standings only, which cannot score samples; "
            "make a bundle with import-contest."
        )
    unknown = sorted(set(attempts) - {problem.index for problem in contest.problems})
    if unknown:
        raise InputError(f"contest {contest.id}: it has no problem {unknown[0]}; give its index.")
    return contest.scoring


def _rating_json(rating: Rating | None, population: Population | None) -> dict[str, Any] | None:
    if rating is None:
        return None
    return {
        "value": rating.value,
        "low": rating.low,
        "high": rating.high,
        "contests": rating.contests,
        "clamped": rating.clamped,
        "percentile": None if population is None else population.percentile(rating.value),
    }

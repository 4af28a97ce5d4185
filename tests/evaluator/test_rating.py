"""Ratings against brute force, enumeration, another library's t, and a copy of CodeElo's loop."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from evaluator.contests import Contest, ContestProblem, Population, Scoring, Standings
from evaluator.errors import InputError
from evaluator.rating import (
    ContestRating,
    Field,
    Mode,
    mean_rating,
    rate,
    rate_contests,
    rating_at_1,
    rating_at_8,
    score_of,
)

Rows = list[tuple[int, int, int]]
ROWS = st.lists(
    st.tuples(st.integers(-100, 4000), st.integers(0, 300), st.integers(-50, 3600)),
    min_size=1,
    max_size=30,
)
SCORE = st.tuples(st.integers(-100, 4000), st.integers(0, 300))


def standings(rows: Rows) -> Standings:
    return Standings(*np.array(rows, dtype=float).T.copy())


def seed(ratings: list[int], rating: float) -> float:
    return 1 + math.fsum(1 / (1 + 10 ** ((rating - other) / 400)) for other in ratings)


def spread_field(size: int) -> Standings:
    """``size`` participants, best first: 10 points apart, ratings falling by 4 from 2500."""
    return standings([(10 * (size - i), 0, 2500 - 4 * i) for i in range(size)])


@given(ROWS, SCORE)
def test_place_is_the_worst_of_the_tie(rows: Rows, score: tuple[int, int]) -> None:
    def key(points: float, penalty: float) -> tuple[float, float]:
        return (-points, penalty)

    mine = key(*score)
    not_worse = sum(key(p, q) <= mine for p, q, _ in rows)
    assert rate(standings(rows), *score).place == 1 + not_worse


@settings(max_examples=60)
@given(ROWS, st.integers(1, 31))
def test_bisection_finds_what_a_grid_finds(rows: Rows, place: int) -> None:
    """The grid: every whole rating in [0, best + 100], the one whose expected place is nearest."""
    ratings = [rating for _, _, rating in rows]
    assume(place <= len(rows) + 1)
    found, clamped = Field(np.array(ratings, dtype=float)).performance(place)
    grid = np.arange(0, max(ratings) + 101)
    seeds = 1 + (1 / (1 + 10 ** ((grid[:, None] - np.array(ratings)) / 400))).sum(axis=1)
    assert abs(found - grid[np.abs(seeds - place).argmin()]) <= 1
    outside = place < seeds[-1] or place > seeds[0]
    assert clamped == (outside or place in (1, len(rows) + 1))
    if not clamped:
        assert seed(ratings, found) == pytest.approx(place, abs=1e-6)


@given(ROWS, SCORE, SCORE, st.sampled_from(Mode))
def test_a_better_score_never_rates_lower(
    rows: Rows, one: tuple[int, int], other: tuple[int, int], mode: Mode
) -> None:
    many = rows * (1 + 200 // len(rows))  # CodeElo's rule wants more than 200
    worse, better = sorted([one, other], key=lambda score: (score[0], -score[1]))
    field = standings(many)
    low, high = rate(field, *worse, mode=mode), rate(field, *better, mode=mode)
    assert high.place <= low.place
    assert high.rating >= low.rating


@given(ROWS)
def test_winning_and_solving_nothing_are_clamped_and_marked(rows: Rows) -> None:
    field, best = standings(rows), max(rating for _, _, rating in rows)
    won = rate(field, 4001, 0)
    assert (won.place, won.rating, won.clamped) == (1, max(0, best + 100), True)
    last = rate(field, -101, 301)
    assert (last.place, last.clamped) == (len(rows) + 1, True)
    assert last.rating == 0
    # A chance of 1 − 10⁻²⁰ is 1 in double precision, and the place marked all the same.
    assert Field(np.array([9000.0])).performance(2) == (0, True)


def test_what_lies_inside_is_not_marked() -> None:
    found = rate(spread_field(300), 1495, 0)
    assert found.place == 152
    assert not found.clamped
    assert seed([2500 - 4 * i for i in range(300)], found.rating) == pytest.approx(152, abs=1e-6)


def codeelo_loop(rows: Rows, score: int, penalty: int) -> tuple[int, int]:
    """What QwenLM/CodeElo's script does, step for step: (rank, rating)."""
    ordered = sorted(rows, key=lambda row: (-row[0], row[1]))
    rank = len(ordered)
    for i, (points, minutes, _) in enumerate(ordered):
        if points < score or (points == score and minutes > penalty):
            rank = i
            break
    left, right = 0, max(0, *(rating for _, _, rating in ordered)) + 100
    while right - left > 1:
        middle = int((left + right) / 2)
        if seed([rating for _, _, rating in ordered], middle) < rank:
            right = middle
        else:
            left = middle
    return rank, left


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.integers(0, 5), st.integers(-50, 3600)),
        min_size=201, max_size=260,
    ),
    st.integers(-1, 41), st.integers(0, 6),
)  # fmt: skip
def test_codeelo_mode_is_codeelos_own_loop(rows: Rows, points: int, penalty: int) -> None:
    found = rate(standings(rows), points, penalty, mode=Mode.CODEELO)
    assert (found.place, found.rating) == codeelo_loop(rows, points, penalty)


def test_codeelo_marks_its_ends_and_refuses_small_contests() -> None:
    field = spread_field(201)
    assert rate(field, 9999, 0, mode=Mode.CODEELO).clamped
    assert rate(field, -1, 0, mode=Mode.CODEELO).clamped
    assert not rate(field, 1005, 0, mode=Mode.CODEELO).clamped
    with pytest.raises(InputError, match=r"200 .*use mode elo"):
        rate(spread_field(200), 5, 0, mode=Mode.CODEELO)


def contest(scoring: Scoring, points: list[int], field: Standings | None = None) -> Contest:
    problems = tuple(
        ContestProblem(letter, None if scoring is Scoring.ICPC else float(worth))
        for letter, worth in zip("ABCDEF", points, strict=False)
    )
    name = f"contest-{len(points)}"
    return Contest(name, name, field or spread_field(300), scoring, problems)


SAMPLES = st.lists(st.booleans(), min_size=1, max_size=4)


@settings(max_examples=40, deadline=None)
@given(st.lists(SAMPLES, min_size=1, max_size=4), st.sampled_from(Scoring), st.sampled_from(Mode))
def test_rating_at_1_is_the_mean_over_every_choice(
    samples: list[list[bool]], scoring: Scoring, mode: Mode
) -> None:
    worths = [500, 750, 750, 1000][: len(samples)]
    chosen = contest(scoring, worths)
    ratings, clamped = [], []
    for choice in itertools.product(*samples):
        solved = [w for w, ok in zip(worths, choice, strict=True) if ok]
        points = len(solved) if scoring is Scoring.ICPC else sum(solved)
        found = rate(chosen.standings, points, 0, mode=mode)
        ratings.append(found.rating)
        clamped.append(found.clamped)
    got = rating_at_1(chosen, dict(zip("ABCD", samples, strict=False)), mode=mode)
    assert got.rating == pytest.approx(np.mean(ratings))
    assert got.clamped == pytest.approx(np.mean(clamped))


@settings(max_examples=40, deadline=None)
@given(st.lists(SAMPLES, min_size=1, max_size=4), st.data())
def test_solving_one_sample_more_never_lowers_rating_at_1(
    samples: list[list[bool]], data: st.DataObject
) -> None:
    chosen = contest(Scoring.POINTS, [500, 750, 750, 1000][: len(samples)])
    problem = data.draw(st.integers(0, len(samples) - 1))
    sample = data.draw(st.integers(0, len(samples[problem]) - 1))
    better = [list(each) for each in samples]
    better[problem][sample] = True
    before, after = (
        rating_at_1(chosen, dict(zip("ABCD", s, strict=False))) for s in (samples, better)
    )
    assert after.rating >= before.rating - 1e-6


@given(st.lists(st.booleans(), max_size=12), st.integers(0, 1000))
def test_attempts_stop_at_the_first_accepted_and_at_eight(tried: list[bool], worth: int) -> None:
    first = tried.index(True) if True in tried else None
    if first is None or first > 7:
        by_points, by_problems = (0.0, 0.0), (0.0, 0.0)
    else:
        by_points, by_problems = (max(0, worth - 50 * first), 0.0), (1.0, 10.0 * first)
    assert score_of(contest(Scoring.POINTS, [worth]), {"A": tried}) == by_points
    assert score_of(contest(Scoring.ICPC, [worth]), {"A": tried}) == by_problems


def test_rating_at_8_counts_earlier_rejections_and_is_blank_when_too_few_were_drawn() -> None:
    chosen = contest(Scoring.POINTS, [1000, 500])
    at_once = rating_at_8(chosen, {"A": [True] * 8, "B": [False] * 8})
    later = rating_at_8(chosen, {"A": [False] * 3 + [True] * 5, "B": [False] * 8})
    assert at_once is not None
    assert later is not None
    assert later.rating == rate(chosen.standings, 850, 0).rating < at_once.rating
    assert rating_at_8(chosen, {"A": [True] * 7, "B": [False] * 7}) is None
    enough = rating_at_8(chosen, {"A": [True], "B": [False] * 8})
    assert enough == at_once  # what follows an accepted attempt is never submitted


def test_samples_need_a_bundle_and_known_problems() -> None:
    bare = Contest("1", "standings alone", spread_field(3))
    with pytest.raises(InputError, match="import-contest"):
        rating_at_1(bare, {"A": [True]})
    with pytest.raises(InputError, match="no problem Z"):
        score_of(contest(Scoring.POINTS, [500]), {"Z": [True]})


def test_the_interval_is_students_and_blank_for_one_contest() -> None:
    def rated(value: float) -> ContestRating:
        return ContestRating("x", value, 1, clamped=0.5)

    assert mean_rating([]) is None
    one = mean_rating([rated(1500)])
    assert one is not None
    assert (one.value, one.low, one.high, one.clamped) == (1500, None, None, 0.5)
    three = mean_rating([rated(1400), rated(1500), rated(1600)])
    assert three is not None
    assert three.low is not None
    assert three.high is not None
    # t(0.975, 2) = 4.302653, s = 100, n = 3: printed in every table of Student's t.
    assert three.high - three.value == pytest.approx(4.302653 * 100 / math.sqrt(3), rel=1e-6)
    assert three.value - three.low == pytest.approx(three.high - three.value)


def test_a_rating_that_was_always_clamped_has_no_interval() -> None:
    """Winning three Div. 2 contests would else be known to a few points."""
    ceilings = [ContestRating("x", 2000 + i, 1, clamped=1.0) for i in range(3)]
    found = mean_rating(ceilings)
    assert found is not None
    assert (found.value, found.low, found.high, found.clamped) == (2001, None, None, 1.0)
    once = mean_rating([*ceilings, ContestRating("x", 1500, 90, clamped=0.5)])
    assert once is not None
    assert once.low is not None
    assert once.clamped == pytest.approx(3.5 / 4)


def test_intervals_narrow_with_contests_and_cover() -> None:
    """Normal performances: coverage within 2 points of 95 %, mean width falling with every step."""
    rng = np.random.default_rng(1)
    widths = []
    for contests in (2, 4, 8, 16):
        covered, width, trials = 0, 0.0, 2000
        for values in rng.normal(1500, 200, (trials, contests)):
            rating = mean_rating([ContestRating("x", float(v), 1, 0) for v in values])
            assert rating is not None
            assert rating.low is not None
            assert rating.high is not None
            covered += rating.low <= 1500 <= rating.high
            width += (rating.high - rating.low) / trials
        assert 0.93 <= covered / trials <= 0.97
        widths.append(width)
    assert widths == sorted(widths, reverse=True)


@given(st.lists(st.integers(-50, 4000), min_size=1, max_size=40), st.floats(-100, 4100))
def test_percentile_is_the_share_strictly_below(ratings: list[int], rating: float) -> None:
    below = sum(other < rating for other in ratings)
    assert Population.of("p", ratings).percentile(rating) == pytest.approx(
        100 * below / len(ratings)
    )


def test_the_whole_rating_names_population_and_gaps() -> None:
    first = contest(Scoring.POINTS, [500, 1000])
    second = contest(Scoring.ICPC, [1, 1, 1])
    small = Contest("small", "few came", spread_field(50), Scoring.POINTS, first.problems)
    attempts = {
        first.id: {"A": [True] * 8},
        second.id: {"A": [True, False] * 4, "B": [False] * 8, "C": [False] * 8},
        small.id: {"A": [True] * 8, "B": [False] * 8},
    }
    population = Population.of("our town", [800, 1200, 1600, 2000])
    unused = Contest("other", "nobody asked", spread_field(300), Scoring.POINTS, first.problems)
    found = rate_contests([first, second, small, unused], attempts, population=population)
    assert [row["id"] for row in found["contests"]] == [first.id, second.id, "small"]
    assert found["contests"][0]["unsampled_problems"] == ["B"]
    assert found["population"] == {"name": "our town", "size": 4}
    values = [row["rating@1"] for row in found["contests"]]
    assert found["rating@1"]["value"] == pytest.approx(np.mean(values))
    assert found["rating@1"]["percentile"] == population.percentile(found["rating@1"]["value"])
    codeelo = rate_contests([first, second, small], attempts, mode=Mode.CODEELO)
    assert [row["id"] for row in codeelo["contests"]] == [first.id, second.id]
    assert codeelo["population"] is None
    assert codeelo["rating@1"]["percentile"] is None
    few = {first.id: {"A": [False]}, second.id: attempts[second.id]}
    blank = rate_contests([first, second], few)
    assert blank["rating@8"] is None  # a mean over other contests would be another figure
    assert blank["rating@1"] is not None
    assert rate_contests([], {})["rating@1"] is None

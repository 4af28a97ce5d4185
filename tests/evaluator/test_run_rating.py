"""What a run is rated by: which contests count, what is missing, what is kept on disk."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluator.contests import Population, read_bundle
from evaluator.errors import InputError
from evaluator.rating import rate
from evaluator.run_rating import INCOMPLETE, NO_BUNDLE, Yardstick
from tests.evaluator import programs

BUNDLE = programs.bundle("9001")
CONTEST = read_bundle(BUNDLE)


def graded(ids: list[str], outcomes: list[str]) -> list[dict[str, Any]]:
    return [
        {"problem_id": problem_id, "sample": sample, "outcome": outcome}
        for problem_id in ids
        for sample, outcome in enumerate(outcomes)
    ]


@pytest.mark.parametrize("name", ["9001/A", "9001A"])
def test_a_contest_is_matched_by_the_sites_ids_and_what_is_absent_is_not_solved(name: str) -> None:
    rows = graded([name, "elsewhere"], ["correct"] * 8)
    found = Yardstick((CONTEST,)).rate(rows, problem_ids={name, "elsewhere"}, samples=8)
    [contest] = found["elo"]["contests"]
    assert contest["unsampled_problems"] == ["B"]
    assert contest["rating@1"] == rate(CONTEST.standings, 500, 0).rating, "A, and nothing else"
    assert found["missing"] is None


def test_without_a_contest_of_these_problems_the_reason_is_given() -> None:
    for contests in ((), (CONTEST,)):
        rows = graded(["1/A"], ["correct"])
        found = Yardstick(contests).rate(rows, problem_ids={"1/A"}, samples=1)
        assert found == {"elo": None, "codeelo": None, "missing": NO_BUNDLE}


@pytest.mark.parametrize("outcome", ["engine_error", "grader_error"])
def test_an_error_is_never_a_rejected_attempt(outcome: str) -> None:
    ids = ["9001/A", "9001/B"]
    rows = graded(ids, ["correct", outcome])
    found = Yardstick((CONTEST,)).rate(rows, problem_ids=set(ids), samples=2)
    assert found == {"elo": None, "codeelo": None, "missing": INCOMPLETE}


@given(st.lists(st.integers(-50, 4000), min_size=1, max_size=60), st.integers(0, 4000))
def test_a_population_survives_being_written(ratings: list[int], rating: int) -> None:
    before = Population.of("people", ratings)
    after = Population.from_json(json.loads(json.dumps(before.to_json())))
    assert after.name == "people"
    assert np.array_equal(after.ratings, before.ratings)
    assert after.percentile(rating) == before.percentile(rating)


def test_a_yardstick_rates_the_same_after_being_written_and_holds_no_tests() -> None:
    ids = ["9001/A", "9001/B"]
    rows = graded(ids, ["correct", "wrong"] * 4)
    before = Yardstick((CONTEST,), Population.of("people", [900, 1500]))
    text = json.dumps(before.to_json())
    assert "official_tests" not in text
    after = Yardstick.from_json(json.loads(text))
    ratings = [each.rate(rows, problem_ids=set(ids), samples=8) for each in (before, after)]
    assert ratings[0] == ratings[1]
    assert ratings[0]["elo"]["population"] == {"name": "people", "size": 2}


def test_a_contest_never_counts_twice() -> None:
    with pytest.raises(InputError, match="9001 comes twice"):
        Yardstick((CONTEST, CONTEST))

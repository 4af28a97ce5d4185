"""pass@k and cons@k against enumeration of all subsets; the aggregate's promises."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from evaluator.errors import InputError
from evaluator.metrics import aggregate, cons_at_k, pass_at_k
from evaluator.protocol import MOST_SAMPLES, Protocol
from evaluator.records import Outcome, Problem


@given(st.integers(1, 8), st.integers(0, 8), st.integers(1, 9))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(n: int, c: int, k: int) -> None:
    c = min(c, n)
    if k > n:
        assert pass_at_k(n, c, k) is None
        return
    subsets = list(itertools.combinations([1] * c + [0] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(max, subsets)) / len(subsets))


def _consensus(votes: Sequence[int | None], right: set[int]) -> Fraction:
    """Score of one vote: the share of right classes among the largest."""
    counts = Counter(vote for vote in votes if vote is not None)
    if not counts:
        return Fraction(0)
    top = [vote for vote, count in counts.items() if count == max(counts.values())]
    return Fraction(sum(vote in right for vote in top), len(top))


@given(
    st.lists(st.sampled_from([None, 0, 1, 2, 3]), min_size=1, max_size=9),
    st.sets(st.integers(0, 3), max_size=2),
)
def test_cons_at_k_is_the_mean_over_all_subsets(votes: list[int | None], right: set[int]) -> None:
    n = len(votes)
    sizes = [votes.count(i) for i in range(4)]
    for k in range(1, n + 1):
        scores = [_consensus(subset, right) for subset in itertools.combinations(votes, k)]
        expected = float(sum(scores) / len(scores))
        assert cons_at_k(n, sizes, right, k) == pytest.approx(expected, abs=1e-12)
    assert cons_at_k(n, sizes, right, n + 1) is None


def test_cons_at_k_of_a_large_vote_is_fast_and_consistent() -> None:
    sizes = [20, 10] + [1] * 30
    assert cons_at_k(64, sizes, {0}, 64) == 1.0
    assert cons_at_k(64, sizes, {0}, 1) == pytest.approx(20 / 64)
    assert cons_at_k(64, sizes, {1}, 64) == 0.0


PROBLEMS = [
    Problem("a", "1+1", "2", subject="sums", level="1"),
    Problem("b", "2+2", "4", subject="sums", level="2"),
]


def _row(
    problem: str, sample: int, outcome: str, answer: str | None, **more: Any
) -> dict[str, Any]:
    return {
        "problem_id": problem, "sample": sample, "outcome": outcome, "answer": answer, **more,
    }  # fmt: skip


def _same_number(pairs: Sequence[tuple[str, str]]) -> list[bool]:
    return [float(first) == float(second) for first, second in pairs]


def _aggregate(rows: list[dict[str, Any]], samples: int = 4) -> dict[str, Any]:
    return aggregate(
        PROBLEMS, rows, benchmark="arithmetic", grader="integer/1", samples=samples,
        measurement_hash="m", run_fingerprint="r", equal=_same_number,
    )  # fmt: skip


FULL = [
    _row("a", 0, "correct", "2", completion_tokens=10),
    _row("a", 1, "correct", "2.0", completion_tokens=20),
    _row("a", 2, "wrong", "3", completion_tokens=30),
    _row("a", 3, "truncated", None, completion_tokens=40),
    _row("b", 0, "wrong", "5"),
    _row("b", 1, "wrong", "5.0"),
    _row("b", 2, "correct", "4"),
    _row("b", 3, "no_answer", None),
]


def test_aggregate_of_a_complete_evaluation() -> None:
    metrics = _aggregate(FULL)
    assert metrics["schema"] == "retort/metrics/1"
    assert metrics["complete"] is True
    assert metrics["bounds"] is None
    assert sum(metrics["outcomes"].values()) == len(PROBLEMS) * 4
    assert set(metrics["outcomes"]) == {str(outcome) for outcome in Outcome}
    assert metrics["pass@1"]["value"] == pytest.approx((2 / 4 + 1 / 4) / 2)
    assert metrics["cons@k"]["1"] == pytest.approx(metrics["pass@1"]["value"])
    assert metrics["cons@k"]["4"] == pytest.approx((1 + 0) / 2)  # 5 and 5.0 outvote 4
    assert metrics["cons@k_string"]["4"] == pytest.approx((2 / 3 + 1 / 3) / 2)  # by strings: ties
    assert metrics["pass@k"]["64"] is None
    assert metrics["cons@k"]["64"] is None
    assert metrics["tokens"] == {"mean": 25.0, "median": 25.0, "p95": 38.5, "max": 40.0}
    assert metrics["by"]["level"]["2"]["value"] == pytest.approx(1 / 4)
    assert metrics["by"]["subject"]["sums"]["problems"] == 2
    assert metrics["per_problem"][1] == {
        "id": "b", "n": 4, "correct": 1, "majority": "5", "votes": 2, "cons": 0.0,
    }  # fmt: skip


@pytest.mark.parametrize("lost", ["engine_error", "grader_error", None])
def test_errors_make_a_score_incomplete_and_never_wrong(lost: str | None) -> None:
    rows = FULL[:-1] + ([] if lost is None else [_row("b", 3, lost, None)])
    metrics = _aggregate(rows)
    assert metrics["complete"] is False
    assert metrics["pass@1"]["value"] is None
    assert set(metrics["pass@k"].values()) == set(metrics["cons@k"].values()) == {None}
    assert metrics["bounds"] == {"low": pytest.approx(3 / 8), "high": pytest.approx(4 / 8)}
    assert metrics["outcomes"][lost or "engine_error"] == 1
    assert sum(metrics["outcomes"].values()) == 8


@given(
    st.lists(
        st.lists(st.sampled_from(["2", "3", "3.0", "5", None]), min_size=3, max_size=3),
        min_size=2, max_size=2,
    ),
    st.randoms(),
)  # fmt: skip
def test_figures_do_not_depend_on_the_order_of_rows(answers: Any, random: Any) -> None:
    rows = []
    for problem, drawn in zip("ab", answers, strict=True):
        for sample, answer in enumerate(drawn):
            outcome = "no_answer" if answer is None else "correct" if answer == "2" else "wrong"
            rows.append(_row(problem, sample, outcome, answer))
    metrics = _aggregate(rows, 3)
    assert metrics["cons@k"]["1"] == pytest.approx(metrics["pass@1"]["value"])
    random.shuffle(rows)
    assert _aggregate(rows, 3) == metrics


@pytest.mark.parametrize(
    ("rows", "field"),
    [
        ([_row("c", 0, "wrong", "1")], "problem_id"),
        ([_row("a", 4, "wrong", "1")], "sample"),
        ([_row("a", 0, "wrong", "1")] * 2, "sample"),
    ],
)
def test_rows_that_do_not_belong_are_refused(rows: list[dict[str, Any]], field: str) -> None:
    with pytest.raises(InputError, match=f"^{field}:"):
        _aggregate(rows)


def test_a_vote_is_counted_up_to_the_most_samples_and_more_are_refused() -> None:
    """One more than 1,029 and the ways to choose half of them are no float."""
    sizes = [MOST_SAMPLES // 2, MOST_SAMPLES // 4]
    for k in (1, MOST_SAMPLES // 2, MOST_SAMPLES):
        score = cons_at_k(MOST_SAMPLES, sizes, {0}, k)
        assert score is not None
        assert score == pytest.approx(0.5 if k == 1 else 1.0)
    with pytest.raises(InputError, match=r"^samples: 1025 of a problem are more than 1024"):
        _aggregate([], MOST_SAMPLES + 1)
    with pytest.raises(ValidationError, match="less than or equal to 1024"):
        Protocol(samples=MOST_SAMPLES + 1)


def test_a_benchmark_of_no_problems_is_refused() -> None:
    with pytest.raises(InputError, match="problems"):
        aggregate([], [], benchmark="x", grader="g", samples=1, measurement_hash="",
                  run_fingerprint="", equal=_same_number)  # fmt: skip

"""Errors, intervals and paired tests against enumeration and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluator.statistics import (
    compare_paired,
    holm,
    se_rerun,
    se_total,
    sign_flip_p,
    wilson_interval,
)


@given(st.lists(st.integers(-6, 6), min_size=1, max_size=9))
def test_sign_flip_p_is_the_share_of_sign_patterns_as_extreme(differences: list[int]) -> None:
    observed = abs(sum(differences))
    patterns = list(itertools.product((-1, 1), repeat=len(differences)))
    extreme = sum(
        abs(sum(s * d for s, d in zip(signs, differences, strict=True))) >= observed
        for signs in patterns
    )
    assert sign_flip_p(differences) == pytest.approx(extreme / len(patterns), abs=1e-12)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), min_size=2, max_size=12))
def test_paired_comparison_is_antisymmetric_and_uses_means(pairs: list[tuple[int, int]]) -> None:
    first, second = [(a, 4) for a, _ in pairs], [(b, 6) for _, b in pairs]
    there, back = compare_paired(first, second), compare_paired(second, first)
    differences = [a / 4 - b / 6 for a, b in pairs]
    assert there.difference == pytest.approx(np.mean(differences))
    assert back.difference == pytest.approx(-there.difference)
    assert back.p == pytest.approx(there.p)
    expected_se = np.std(differences, ddof=1) / math.sqrt(len(pairs))
    assert there.se == pytest.approx(expected_se, abs=1e-12)
    assert there.resolvable == pytest.approx((1.959964 + 0.841621) * expected_se, rel=1e-5)


def test_paired_comparison_refuses_different_sets() -> None:
    with pytest.raises(ValueError, match="same problems"):
        compare_paired([(1, 2)], [(1, 2), (0, 2)])


def test_rerun_error_is_the_deviation_over_reruns() -> None:
    rng = np.random.default_rng(0)
    rates, n = rng.uniform(0, 1, 40), 8
    scores = rng.binomial(n, rates, size=(4000, 40)).mean(axis=1) / n
    estimates = [
        se_rerun([(int(c), n) for c in counts]) or 0.0
        for counts in rng.binomial(n, rates, size=(300, 40))
    ]
    assert np.mean(estimates) == pytest.approx(scores.std(), rel=0.05)


def test_errors_are_blank_where_they_are_undefined() -> None:
    assert se_total([0.5]) is None
    assert se_rerun([(1, 1), (0, 1)]) is None
    assert se_rerun([]) is None
    assert se_total([1.0, 1.0]) == 0.0


@given(
    st.lists(st.integers(0, 8), min_size=1, max_size=60).map(lambda cs: [c / 8 for c in cs]),
)
def test_the_interval_holds_the_mean_and_stays_inside_zero_and_one(means: list[float]) -> None:
    p = sum(means) / len(means)
    low, high = wilson_interval(p, se_total(means), len(means))
    assert 0 <= low <= p <= high <= 1
    assert high > low


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("mean", [0.94, 0.96, 0.98])
def test_interval_coverage_near_the_ceiling(mean: float, n: int) -> None:
    """93–98 % of intervals hold the truth for N = 30 problems whose rates vary (PROTOCOLS §2).

    Coverage of a discrete statistic jumps between means, so it is averaged over means within
    ±0.01 of the one named.
    """
    rng = np.random.default_rng(int(mean * 100) + n)
    problems, covered, trials = 30, 0, 6000
    for _ in range(trials):
        truth = rng.uniform(mean - 0.01, mean + 0.01)
        rates = rng.beta(truth * 6, (1 - truth) * 6, size=problems)
        means = rng.binomial(n, rates) / n
        low, high = wilson_interval(float(means.mean()), se_total(list(means)), problems)
        covered += low <= truth <= high
    assert 0.93 <= covered / trials <= 0.98, covered / trials


@settings(max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_as_the_step_down_procedure_does(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    alpha = 0.05
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    rejected = set()
    for rank, index in enumerate(order):
        if p_values[index] * (len(p_values) - rank) > alpha:
            break
        rejected.add(index)
    assert {i for i, p in enumerate(adjusted) if p <= alpha} == rejected

"""Errors, intervals and paired tests against enumeration and simulation."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluator import statistics
from evaluator.statistics import (
    compare_paired,
    difference_interval,
    holm,
    mean_interval,
    redistribution_p,
    se_rerun,
    se_total,
    sign_flip_p,
    sign_flip_p_normal,
    t_quantile,
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
    assert there.low is there.high is there.resolvable is None, "n differs"
    differences = [a / 4 - b / 6 for a, b in pairs]
    assert there.difference == pytest.approx(np.mean(differences))
    assert back.difference == pytest.approx(-there.difference)
    assert back.p == pytest.approx(there.p)
    expected_se = np.std(differences, ddof=1) / math.sqrt(len(pairs))
    assert there.se == pytest.approx(expected_se, abs=1e-12)


def test_resolvable_is_what_four_of_five_runs_find_by_the_normal_law() -> None:
    found = compare_paired([(3, 4), (2, 4)] * 15, [(1, 4), (2, 4)] * 15)
    assert found.se is not None
    assert found.resolvable == pytest.approx((1.959964 + 0.841621) * found.se, rel=1e-5)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([(3, 4), (1, 4)] * 5, [(3, 4), (1, 4)] * 5),
        ([(3, 10)] * 3, [(2, 10)] * 3),
        ([(3, 10), (8, 10), (1, 10)] * 9, [(2, 10), (7, 10), (0, 10)] * 9),
    ],
)
def test_differences_that_are_all_equal_tell_of_no_spread(
    first: list[tuple[int, int]], second: list[tuple[int, int]]
) -> None:
    """Three times 3/10 − 2/10 have a deviation of 1e-17 in floats."""
    found = compare_paired(first, second)
    assert found.se == 0
    assert found.resolvable is None


@pytest.mark.parametrize("problems", range(2, 9))
def test_nothing_is_resolvable_where_no_outcome_could_be_told_from_chance(problems: int) -> None:
    clearest = compare_paired([(4, 4)] * problems, [(0, 4)] * problems)
    found = compare_paired([(4, 4)] * problems, [(0, 4)] * (problems - 1) + [(1, 4)])
    assert (found.resolvable is not None) == (clearest.p < 0.05)


STRATA = st.lists(
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(0, 63)), min_size=1, max_size=4
)


@given(STRATA)
def test_redistribution_p_is_the_share_of_deals_as_extreme(
    strata: list[tuple[int, int, int]],
) -> None:
    """Every deal of each problem's samples to the two runs, one by one."""
    first, second, dealt = [], [], []
    for n, m, bits in strata:
        samples = [bits >> place & 1 for place in range(n + m)]
        first.append((sum(samples[:n]), n))
        second.append((sum(samples[n:]), m))
        mine = [sum(hand) for hand in itertools.combinations(samples, n)]
        dealt.append([Fraction(c, n) - Fraction(sum(samples) - c, m) for c in mine])
    observed = abs(sum(Fraction(*c) - Fraction(*d) for c, d in zip(first, second, strict=True)))
    deals = [abs(sum(deal)) >= observed for deal in itertools.product(*dealt)]
    assert redistribution_p(first, second) == pytest.approx(sum(deals) / len(deals), abs=1e-12)


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("rate", [0.95, 0.98])
def test_equal_models_with_unlike_n_are_seldom_called_different(rate: float, n: int) -> None:
    rng = np.random.default_rng([n, int(100 * rate)])
    called = 0
    for _ in range(200):
        few = [(int(c), n) for c in rng.binomial(n, rate, 30)]
        many = [(int(c), 64) for c in rng.binomial(64, rate, 30)]
        called += compare_paired(few, many).p < 0.05
    assert called <= 16  # of 200 at the 5 % level: exceeded in 2 % of such draws at most


def test_all_right_once_is_not_better_than_nearly_all_right_of_many() -> None:
    once, often = [(1, 1)] * 30, [(61, 64)] * 30
    found = compare_paired(once, often)
    assert found.p == pytest.approx(0.40, abs=0.005)
    plain = compare_paired(once, [(0, 64)] * 30)
    assert plain.p < 0.001, "what is plain stays plain"


def test_a_redistribution_beyond_the_bound_is_nearly_the_exact_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(2)
    first = [(int(c), 7) for c in rng.binomial(7, 0.5, 200)]
    second = [(int(c), 8) for c in rng.binomial(8, 0.53, 200)]
    exact = redistribution_p(first, second)
    monkeypatch.setattr(statistics, "REDISTRIBUTION", 0)
    assert redistribution_p(first, second) == pytest.approx(exact, abs=0.002)


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


MEANS = st.lists(st.integers(0, 8), min_size=1, max_size=60).map(lambda cs: [c / 8 for c in cs])


@given(MEANS)
def test_the_interval_holds_the_mean_and_stays_inside_zero_and_one(means: list[float]) -> None:
    p = sum(means) / len(means)
    low, high = mean_interval(means)
    assert 0 <= low <= p + 1e-12
    assert p - 1e-12 <= high <= 1
    assert high > low


@given(MEANS)
def test_the_interval_of_failures_mirrors_that_of_successes(means: list[float]) -> None:
    low, high = mean_interval(means)
    assert mean_interval([1 - mean for mean in means]) == pytest.approx((1 - high, 1 - low))


@given(st.integers(1, 60), st.integers(0, 60))
def test_one_sample_per_problem_gives_wilsons_interval(problems: int, right: int) -> None:
    right = min(right, problems)
    p = right / problems
    error = se_total([1.0] * right + [0.0] * (problems - right))
    size = p * (1 - p) / error**2 if error else problems
    assert mean_interval([1.0] * right + [0.0] * (problems - right)) == pytest.approx(
        wilson_interval(p, size)
    )


def test_the_interval_tends_to_wilsons_at_the_effective_size() -> None:
    means = [0.25, 0.5, 0.75, 1.0] * 2000
    p, error = sum(means) / len(means), se_total(means)
    assert error is not None
    assert mean_interval(means) == pytest.approx(
        wilson_interval(p, p * (1 - p) / error**2), abs=1e-5
    )


def test_one_failed_sample_does_not_make_a_perfect_score_more_certain() -> None:
    """p(1−p)/SE² of a lone failure is n times the number of problems: the ceiling's own trap."""
    perfect, _ = mean_interval([1.0] * 30)
    nearly, _ = mean_interval([1.0] * 29 + [63 / 64])
    assert nearly == pytest.approx(perfect, abs=0.01)


Law = list[tuple[float, float, float]]  # (weight, mean, concentration) of Beta components

LAWS: dict[str, Law] = {
    "even": [(1.0, 0.96, 6.0)],
    "uneven": [(1.0, 0.98, 2.0)],
    "two kinds": [(0.97, 0.99, 50.0), (0.03, 0.02, 50.0)],
    "a hard tail": [(0.94, 0.995, 200.0), (0.06, 0.4, 6.0)],
    "middle": [(1.0, 0.6, 2.0)],
}


@pytest.mark.parametrize("n", [1, 4, 64])
@pytest.mark.parametrize("law", LAWS)
def test_interval_coverage_of_thirty_problems(law: str, n: int) -> None:
    """93–98 % of intervals hold the truth (PROTOCOLS §2).

    Coverage of a discrete statistic jumps between means, so the law is shifted by up to ±0.01.
    """
    rng = np.random.default_rng([n, len(law)])
    problems, trials, covered = 30, 4000, 0
    for _ in range(trials):
        shift = rng.uniform(-0.01, 0.01)
        parts = [(w, min(m + shift, 0.997), c) for w, m, c in LAWS[law]]
        weights = [w for w, _, _ in parts]
        truth = sum(w * m for w, m, _ in parts)
        kinds = rng.choice(len(parts), p=weights, size=problems)
        centre, strength = np.array([part[1:] for part in parts])[kinds].T
        rates = rng.beta(centre * strength, (1 - centre) * strength)
        low, high = mean_interval(list(rng.binomial(n, rates) / n))
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


@pytest.mark.parametrize("freedom", [*range(1, 12), 30, 61, 200])
@pytest.mark.parametrize("p", [0.6, 0.9, 0.975, 0.995])
def test_t_quantiles_agree_with_another_library(p: float, freedom: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    assert t_quantile(p, freedom) == pytest.approx(stats.t.ppf(p, freedom), rel=1e-9)


DIFFERENCES = st.lists(st.integers(-4, 4), min_size=1, max_size=40).map(
    lambda found: [each / 4 for each in found]
)


@given(DIFFERENCES)
def test_the_interval_of_a_difference_holds_it_and_mirrors(differences: list[float]) -> None:
    mean = sum(differences) / len(differences)
    low, high = difference_interval(differences)
    assert -1 <= low <= mean + 1e-12
    assert mean - 1e-12 <= high <= 1
    assert high > low
    assert difference_interval([-each for each in differences]) == pytest.approx((-high, -low))


def test_the_interval_of_a_difference_tends_to_students() -> None:
    differences = [-1.0, -0.25, 0.0, 0.25, 0.5] * 2000
    mean, error = sum(differences) / len(differences), se_total(differences)
    assert error is not None
    assert difference_interval(differences) == pytest.approx(
        (mean - 1.96 * error, mean + 1.96 * error), abs=2e-4
    )


def test_models_that_no_problem_tells_apart_have_an_interval_all_the_same() -> None:
    """Of 30 problems none differs in 22 % of draws where 5 % would; of 500, hardly ever."""
    for problems, reach in ((30, 0.07), (500, 0.003)):
        same = [(2, 4)] * problems
        found = compare_paired(same, same)
        assert found.low is not None
        assert found.high == -found.low > reach
        assert found.high < 2.5 * reach


# One side's chance to fail a problem that the other solves, and how many fail it the other way.
SPARSE = {"one side": 0.0, "a third against it": 1 / 3, "both alike": 1.0}


@pytest.mark.parametrize("n", [1, 16])
@pytest.mark.parametrize("rate", [0.02, 0.05, 0.08, 0.15])
@pytest.mark.parametrize("against", SPARSE)
def test_interval_coverage_where_few_of_thirty_problems_differ(
    against: str, rate: float, n: int
) -> None:
    """At least 92 % hold the truth: Student's own held 30 to 90 % here.

    Of so few the counts jump, so the rate is shifted by up to a third, or 0.01.
    """
    rng = np.random.default_rng([n, round(1000 * rate), len(against)])
    problems, trials, covered = 30, 1500, 0
    for _ in range(trials):
        lost = rate + rng.uniform(-1, 1) * min(0.01, rate / 3)
        won = lost * SPARSE[against]
        lot = rng.random(problems)
        first = np.where(lot < lost, 0.02, 0.995)
        second = np.where(lot > 1 - won, 0.02, 0.995)
        counts = (rng.binomial(n, first) - rng.binomial(n, second)) / n
        low, high = difference_interval(counts.tolist())
        covered += low <= (won - lost) * 0.975 <= high
    assert covered / trials >= 0.92, covered / trials


SPREAD: dict[str, tuple[float, float, float]] = {  # means of both, concentration
    "one better": (0.6, 0.5, 2.0), "far apart": (0.7, 0.3, 1.0), "equal": (0.5, 0.5, 2.0),
}  # fmt: skip


@pytest.mark.parametrize("n", [1, 64])
@pytest.mark.parametrize("law", SPREAD)
def test_interval_coverage_where_many_of_thirty_problems_differ(law: str, n: int) -> None:
    """93–99 %: half of the problems are equally hard for both, so the pairs are correlated."""
    one, other, strength = SPREAD[law]
    rng = np.random.default_rng([n, len(law)])
    problems, trials, covered = 30, 1500, 0
    for _ in range(trials):
        first = rng.beta(one * strength, (1 - one) * strength, problems)
        own = rng.beta(other * strength, (1 - other) * strength, problems)
        second = np.where(rng.random(problems) < 0.5, first, own)
        counts = (rng.binomial(n, first) - rng.binomial(n, second)) / n
        low, high = difference_interval(counts.tolist())
        covered += low <= (one - other) / 2 <= high
    assert 0.93 <= covered / trials <= 0.99, covered / trials


@given(st.lists(st.integers(-8, 8), min_size=20, max_size=60))
def test_the_normal_p_is_close_to_the_exact_one(differences: list[int]) -> None:
    exact = sign_flip_p(differences)
    (normal,) = sign_flip_p_normal(np.array([differences]))
    assert normal == pytest.approx(exact, abs=0.03)


def test_a_lattice_too_fine_for_the_exact_law_gives_nearly_the_same_p(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(1)
    first = [(int(c), 7) for c in rng.binomial(7, 0.5, 200)]
    second = [(int(c), 8) for c in rng.binomial(8, 0.53, 200)]
    exact = compare_paired(first, second).p
    monkeypatch.setattr(statistics, "LATTICE", 100)
    assert compare_paired(first, second).p == pytest.approx(exact, abs=0.002)

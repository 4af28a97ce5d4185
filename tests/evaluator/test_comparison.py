"""Several runs against one baseline: the figures, the words, and the files they go into."""

from __future__ import annotations

import gzip
import itertools
import json
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluator.comparison import against
from evaluator.ranking import ranks
from evaluator.statistics import compare_paired, holm

Counts = list[tuple[int, int]]
RUNS = st.integers(1, 10).flatmap(
    lambda problems: st.lists(
        st.lists(
            st.integers(1, 4).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))),
            min_size=problems, max_size=problems,
        ),
        min_size=2, max_size=5,
    )
)  # fmt: skip


@given(RUNS)
def test_each_run_is_paired_with_the_baseline_and_holm_counts_them_all(runs: list[Counts]) -> None:
    baseline, others = runs[0], runs[1:]
    found = against(baseline, others)
    pairs = [compare_paired(run, baseline) for run in others]
    assert [each.paired for each in found] == pairs
    assert [each.p_holm for each in found] == holm([pair.p for pair in pairs])
    for each, run in zip(found, others, strict=True):
        shares = [(c / n, d / m) for (c, n), (d, m) in zip(run, baseline, strict=True)]
        assert each.wins == sum(a > b for a, b in shares)
        assert each.losses == sum(a < b for a, b in shares)
        assert each.significant == (each.p_holm < 0.05)
        assert each.verdict.endswith(".")


def test_what_cannot_be_separated_is_said_with_what_would_have_been_found() -> None:
    baseline = [(2, 4), (3, 4)] * 15
    run = [(3, 4), (2, 4)] * 14 + [(3, 4), (3, 4)]
    (found,) = against(baseline, [run])
    assert found.paired.resolvable is not None
    points = f"{100 * found.paired.resolvable:.1f}"
    said = (
        f"30 problems cannot separate these two (p = {found.paired.p:.2g}); a true difference of "
        f"{points} points would have been found four times in five"
    )
    assert found.verdict == f"{said}."
    assert against(baseline, [run, run])[0].verdict == f"{said} if it were compared alone."


def test_a_smaller_difference_than_the_resolvable_one_may_be_told_apart() -> None:
    """The resolvable one is found four times in five, so smaller ones are found, too: no noise."""
    run = [(1, 1)] * 8 + [(0, 1)] * 1 + [(1, 1)] * 91
    baseline = [(0, 1)] * 8 + [(1, 1)] * 1 + [(1, 1)] * 91
    (found,) = against(baseline, [run])
    assert found.paired.resolvable is not None
    assert found.paired.difference < found.paired.resolvable
    assert found.significant
    assert "noise" not in found.verdict


def test_what_is_separated_is_said_with_the_difference() -> None:
    (better,) = against([(0, 4)] * 20, [[(3, 4)] * 19 + [(4, 4)]])
    assert better.verdict.startswith("76.2 points better than the baseline")
    (worse,) = against([(4, 4)] * 20, [[(1, 4)] * 20])
    assert worse.verdict.startswith("75.0 points worse")
    (few,) = against([(1, 1)] * 30, [[(0, 1)] * 6 + [(1, 1)] * 24])
    assert few.significant
    assert not few.paired.holds_zero
    assert few.verdict.endswith("more than chance gives on 30 problems.")
    (little,) = against([(4, 64)] * 30, [[(6, 64)] * 29 + [(4, 64)]])
    assert little.significant
    assert little.paired.holds_zero
    assert little.verdict.endswith("on 30 problems, but other problems than these may undo it.")
    (same,) = against([(4, 4)] * 20, [[(2, 2)] * 20])
    assert same.verdict == "These two do not differ on 20 problems."


def test_a_difference_that_many_comparisons_undo_says_so() -> None:
    baseline: Counts = [(0, 1)] * 30
    run = [(1, 1)] * 6 + [(0, 1)] * 24  # p = 2/64 alone
    found = against(baseline, [run, baseline, baseline])[0]
    assert found.paired.p == pytest.approx(2 / 64)
    assert not found.significant
    assert (
        "3 are compared with the baseline (p = 0.031 alone, 0.094 by Holm's rule)" in found.verdict
    )


DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.shared_data
@pytest.mark.parametrize(("name", "problems", "models"), [("aime24", 30, 11), ("math500", 500, 3)])
def test_real_models_are_separated_where_a_sign_test_separates_them(
    name: str, problems: int, models: int
) -> None:
    """One completion a problem: the sign-flip p is the sign test's of the problems that differ."""
    stats = pytest.importorskip("scipy.stats")
    by_model: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
    with gzip.open(DATA / "completions" / f"skythought_{name}.jsonl.gz", "rt") as file:
        for row in map(json.loads, file):
            by_model[row["model"]][row["problem_id"]] = (int(row["published_verdict"]), 1)
    assert len(by_model) == models
    rows = [[counts[i] for i in sorted(counts)] for counts in by_model.values()]
    assert {len(row) for row in rows} == {problems}
    separated = 0
    for first, second in itertools.permutations(rows, 2):
        (found,) = against(second, [first])
        assert (found.wins - found.losses) / problems == pytest.approx(found.paired.difference)
        differing = found.wins + found.losses
        expected = stats.binomtest(found.wins, differing).pvalue if differing else 1.0
        assert found.paired.p == pytest.approx(expected, abs=1e-12)
        noise = "cannot separate these two" in found.verdict
        assert noise == (bool(differing) and expected >= 0.05)
        separated += found.significant
    assert 0 < separated < len(rows) * (len(rows) - 1)
    placed = ranks([[right for right, _ in row] for row in rows], [1] * len(rows))
    best = max(range(len(rows)), key=lambda i: sum(c for c, _ in rows[i]))
    assert placed[best] == 1
    assert len(set(placed)) < len(placed), "so few problems leave ties"

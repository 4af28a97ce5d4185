from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluator import ranking, statistics
from evaluator.ranking import paired_p_normal, ranks
from evaluator.statistics import compare_paired, holm, redistribution_p, sign_flip_p_normal

# (correct samples of each problem, samples of a problem) of each run
RUNS = st.integers(1, 8).flatmap(
    lambda problems: st.lists(
        st.sampled_from([1, 4]).flatmap(
            lambda n: st.tuples(
                st.lists(st.integers(0, n), min_size=problems, max_size=problems), st.just(n)
            )
        ),
        min_size=1, max_size=5,
    )
)  # fmt: skip


@given(RUNS)
def test_a_rank_counts_the_runs_that_are_significantly_better(
    runs: list[tuple[list[int], int]],
) -> None:
    rows = [[(count, n) for count in right] for right, n in runs]
    pairs = list(itertools.combinations(range(len(rows)), 2))
    compared = [compare_paired(rows[a], rows[b]) for a, b in pairs]
    expected = [1] * len(rows)
    for (a, b), found, p in zip(pairs, compared, holm([c.p for c in compared]), strict=True):
        if p < 0.05:
            expected[b if found.difference > 0 else a] += 1
    assert ranks(*zip(*runs, strict=True)) == expected


def test_ranks_admit_ties_and_refuse_other_problems() -> None:
    best, worst = [4] * 12, [0] * 12
    assert ranks([worst, best, best, worst], [4] * 4) == [3, 1, 1, 3]
    assert ranks([[61] * 30, [1] * 30], [64, 1]) == [1, 1]
    assert ranks([[0] * 30, [1] * 30], [64, 1]) == [2, 1], "what is plain stays plain"
    assert ranks([], []) == []
    assert ranks([[1]], [1]) == [1]
    with pytest.raises(ValueError, match="same problems"):
        ranks([[1], [1, 0]], [4, 4])
    with pytest.raises(ValueError, match="at least one"):
        ranks([[], []], [4, 4])


def test_many_runs_are_ranked_alike_by_the_normal_law(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    right = np.array([rng.binomial(4, ability, 100) for ability in np.linspace(0.1, 0.9, 9)])
    # Some of them drew a quarter of the samples: their pairs have the stricter test, too.
    samples = np.where(np.arange(9) % 3, 4, 1)
    right = np.where(samples[:, np.newaxis] == 1, right > 1, right)
    exact = ranks(right, samples)
    monkeypatch.setattr(ranking, "EXACT_PAIRS", 0)
    assert ranks(right, samples) == exact
    assert len(set(exact)) > 3


@pytest.mark.parametrize("problems", [1, 12, ranking.FIRST_PROBLEMS + 20])
@pytest.mark.parametrize("drawn", [[4, 4, 4], [1, 4, 6, 64], [53, 59, 61, 63, 64, 47, 43, 41, 37]])
@pytest.mark.parametrize("step", [1, 2])
def test_every_pair_of_many_runs_is_tested_as_it_is_alone(
    problems: int, drawn: list[int], step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "REDISTRIBUTION", 0)  # the normal law there, too
    rng = np.random.default_rng([problems, *drawn, step])
    samples = np.repeat(drawn, 4)
    skills = rng.uniform(0.2, 0.8, len(samples))
    right = np.array([
        rng.binomial(n, skill, problems) // step * step
        for n, skill in zip(samples, skills, strict=True)
    ])  # fmt: skip
    right[:, ranking.FIRST_PROBLEMS + 1 :] = rng.integers(
        0, 2, right[:, ranking.FIRST_PROBLEMS + 1 :].shape
    )
    right[-1] = right[-2]
    expected = []
    for a, b in itertools.combinations(range(len(samples)), 2):
        common = np.lcm(samples[a], samples[b])
        differences = right[a] * (common // samples[a]) - right[b] * (common // samples[b])
        (p,) = sign_flip_p_normal(differences[np.newaxis])
        if p < 0.05 and samples[a] != samples[b]:
            pair = [[(int(c), int(samples[run])) for c in right[run]] for run in (a, b)]
            p = max(p, redistribution_p(*pair))
        expected.append(p)
    assert paired_p_normal(right, samples) == pytest.approx(expected, rel=1e-9)
    assert problems == 1 or min(expected) < 0.05 < max(expected)

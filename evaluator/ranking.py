"""Ranks on a leaderboard: who is significantly better than whom (PROTOCOLS §2). Pure functions."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import numpy.typing as npt

from evaluator.statistics import SIGNIFICANCE, holm, redistribution_p, sign_flip_p

# Every pair of runs is compared. Beyond so many pairs the exact law of each takes longer than a
# page may; its normal approximation takes three hundred runs in a thirtieth of a second.
EXACT_PAIRS = 435  # thirty runs
# In few pairs do the differences of so many problems have a common divisor above 1: only those are
# held to the rest, too.
FIRST_PROBLEMS = 32

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def ranks(right: npt.ArrayLike, samples: npt.ArrayLike) -> list[int]:
    """Rank of each run: 1 + the number of runs that are significantly better (PROTOCOLS §2).

    ``right`` (R, N) are correct samples of the same problems in the same order, and ``samples``
    (R,) how many each run drew of a problem. A pair ties unless the test of
    :func:`~evaluator.statistics.compare_paired` separates it at the 5 % level after Holm's
    correction over all pairs, by the exact laws up to ``EXACT_PAIRS`` pairs and by
    :func:`paired_p_normal` beyond. Raises ValueError for runs of different length, or of none.
    """
    counts, drawn = _checked(right, samples)
    if len(counts) < 2:
        return [1] * len(counts)
    few = len(counts) * (len(counts) - 1) // 2 <= EXACT_PAIRS
    p_values = _paired_p(counts, drawn) if few else paired_p_normal(counts, drawn)
    first, second = np.triu_indices(len(counts), k=1)
    means = counts.sum(axis=1) / drawn
    behind = np.where(means[first] > means[second], second, first)
    told_apart = np.array(holm(p_values)) < SIGNIFICANCE
    beaten: list[int] = np.bincount(behind[told_apart], minlength=len(counts)).tolist()
    return [1 + count for count in beaten]


def paired_p_normal(right: npt.ArrayLike, samples: npt.ArrayLike) -> list[float]:
    """The p of every pair of runs by the normal law: the first with the second, the third, …

    Shapes and errors are those of :func:`ranks`. Both tests' sums have mean 0, and are drawn in by
    half of the distance between the values that they take. That of sign flips has variance Σd², and
    takes every second multiple of the differences' greatest common divisor. That of
    redistributions, which a pair of unlike n must pass too where the first is below the level, is a
    sum of hypergeometric counts times 1/n₁ + 1/n₂. Sums over problems are products of the runs.
    """
    counts, drawn = _checked(right, samples)
    floats = counts.astype(float)
    products = floats @ floats.T  # (R, R)
    squares, totals = products.diagonal(), counts.sum(axis=1)
    first, second = np.triu_indices(len(counts), k=1)  # of each pair, as all that follows
    one, other = _steps(drawn[first], drawn[second])
    apart = np.abs(one * totals[first] - other * totals[second])
    crossed = products[first, second]
    variance = one**2 * squares[first] + other**2 * squares[second] - 2 * one * other * crossed
    p = _two_sided(apart - _divisors(counts, one, other), variance)
    doubtful = (drawn[first] != drawn[second]) & (p < SIGNIFICANCE)
    if doubtful.any():
        first, second, step = first[doubtful], second[doubtful], (one + other)[doubtful]
        every, both = drawn[first] + drawn[second], totals[first] + totals[second]
        both_squared = squares[first] + squares[second] + 2 * crossed[doubtful]
        spread = drawn[first] * drawn[second] * (every * both - both_squared)
        variance = step**2 * spread / (every**2 * np.maximum(every - 1, 1))
        p[doubtful] = np.maximum(p[doubtful], _two_sided(apart[doubtful] - step / 2, variance))
    found: list[float] = p.tolist()
    return found


def _checked(right: npt.ArrayLike, samples: npt.ArrayLike) -> tuple[Ints, Ints]:
    try:
        counts, drawn = np.asarray(right, dtype=np.int64), np.asarray(samples, dtype=np.int64)
    except ValueError:
        raise ValueError("ranks need the same problems in every run") from None
    if counts.shape[:1] != drawn.shape or (len(drawn) and not counts.size):
        raise ValueError("ranks need the same problems in every run, at least one")
    return counts, drawn


def _steps(first: Ints, second: Ints) -> tuple[Ints, Ints]:
    """What a sample of each is of a problem, in steps of one over the pair's common multiple."""
    common = np.gcd(first, second)
    return second // common, first // common


def _paired_p(right: Ints, samples: Ints) -> list[float]:
    """Every pair's p by the exact laws."""
    rows, drawn, p_values = right.tolist(), samples.tolist(), []
    for a, b in combinations(range(len(rows)), 2):
        one, other = _steps(samples[a], samples[b])
        p = sign_flip_p((one * right[a] - other * right[b]).tolist())
        # a p above the level separates nothing whatever the other test says
        if p < SIGNIFICANCE and drawn[a] != drawn[b]:
            pair = [[(count, drawn[run]) for count in rows[run]] for run in (a, b)]
            p = max(p, redistribution_p(*pair))
        p_values.append(p)
    return p_values


def _divisors(counts: Ints, one: Ints, other: Ints) -> Ints:
    """The greatest common divisor of every pair's differences; 0 where there are none."""
    found, begin = np.zeros(len(one), dtype=np.int64), 0
    for run in range(len(counts) - 1):
        pairs = slice(begin, begin + len(counts) - 1 - run)
        steps = one[pairs, np.newaxis], other[pairs, np.newaxis]
        found[pairs] = _divisors_of_one(counts[run], counts[run + 1 :], *steps)
        begin = pairs.stop
    return found


def _divisors_of_one(run: Ints, others: Ints, one: Ints, other: Ints) -> Ints:
    few = FIRST_PROBLEMS
    divisors: Ints = np.gcd.reduce(one * run[:few] - other * others[:, :few], axis=1)
    left = np.flatnonzero(divisors != 1)
    rest = one[left] * run[few:] - other[left] * others[left, few:]
    divisors[left] = np.gcd(divisors[left], np.gcd.reduce(rest, axis=1))
    return divisors


def _two_sided(reach: Floats | Ints, variance: Floats) -> Floats:
    """The normal p of sums of mean 0 that reach so far; 1 where nothing varies."""
    distances = np.maximum(reach, 0.0)
    scales = np.sqrt(2 * np.maximum(variance, 0.0))
    varies = scales > 0
    p = np.ones(len(scales))
    p[varies] = [math.erfc(each) for each in (distances[varies] / scales[varies]).tolist()]
    return p

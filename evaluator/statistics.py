"""Errors, intervals and paired tests of scores (PROTOCOLS §2). Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

Z_95 = NormalDist().inv_cdf(0.975)
Z_POWER_80 = NormalDist().inv_cdf(0.80)

UNSEEN_PROBLEMS = 1.0  # weight of the problem that each end of an interval allows for

Count = tuple[int, int]  # (correct, scored samples) of one problem


def se_total(means: Sequence[float]) -> float | None:
    """Standard error over problems, s/√N: would the score hold on other problems of this kind?

    ``means`` are problem means in [0, 1]. They contain the sampling noise already, so
    :func:`se_rerun` is never added. None for fewer than two problems. (Miller 2024, §2.1.)
    """
    if len(means) < 2:
        return None
    return float(np.std(np.asarray(means, dtype=float), ddof=1) / math.sqrt(len(means)))


def se_rerun(counts: Sequence[Count]) -> float | None:
    """Standard error of a re-run of the same problems: sqrt(Σ p̂(1−p̂)/(n−1))/N.

    None where a problem has fewer than two samples. (Miller 2024, §2.3.)
    """
    if not counts or any(n < 2 for _, n in counts):
        return None
    variances = [(c / n) * (1 - c / n) / (n - 1) for c, n in counts]
    return math.sqrt(math.fsum(variances)) / len(counts)


def wilson_interval(p: float, size: float, *, z: float = Z_95) -> tuple[float, float]:
    """Score interval for a proportion ``p`` of ``size`` > 0 (not necessarily whole) trials.

    It lies inside [0, 1] and holds ``p``. (Wilson 1927.)
    """
    centre = (p + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * math.sqrt(p * (1 - p) / size + z**2 / (4 * size**2))
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))


def mean_interval(means: Sequence[float]) -> tuple[float, float]:
    """95 % interval for the mean of problem means in [0, 1], at least one of them.

    Each end is Wilson's at an effective size (N − 1)/φ, where φ is the design effect: the variance
    of the problem means over that of right-or-wrong ones. For φ as observed that is p(1−p)/SE²
    (PROTOCOLS §2), but a few problems near the ceiling say little about φ: the hard problem that
    would have shown it is usually not among them. So φ for an end is taken with
    ``UNSEEN_PROBLEMS`` more problems lying at that end. The size is N where all means are equal.
    Coverage by simulation: bench/coverage.py; why this one: docs/adr/0007.
    """
    count, p = len(means), math.fsum(means) / len(means)
    if max(means) == min(means):
        return wilson_interval(p, float(count))
    spread = math.fsum((mean - p) ** 2 for mean in means)
    low, _ = wilson_interval(p, (count - 1) / _design_effect(count, p, spread, end=0.0))
    _, high = wilson_interval(p, (count - 1) / _design_effect(count, p, spread, end=1.0))
    return low, high


def _design_effect(count: int, p: float, spread: float, *, end: float) -> float:
    """Variance over p(1−p) of problem means and UNSEEN_PROBLEMS means at ``end``; in (0, 1].

    ``spread`` is the sum of squared deviations of the ``count`` means from their mean ``p``.
    """
    total = count + UNSEEN_PROBLEMS
    mean = (count * p + UNSEEN_PROBLEMS * end) / total
    squares = spread + (p - end) ** 2 * count * UNSEEN_PROBLEMS / total
    return min(1.0, squares / (total * mean * (1 - mean)))


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """Two runs on the same N problems, first minus second."""

    problems: int
    difference: float
    se: float | None
    p: float
    resolvable: float | None  # smallest difference found with 80 % power at the 5 % level


def compare_paired(first: Sequence[Count], second: Sequence[Count]) -> PairedComparison:
    """Compare two runs' (correct, samples) on the same problems, given in the same order.

    ``p`` is the two-sided sign-flip permutation p of the problem means' differences, exact by
    convolution over a common denominator. Raises ValueError for unequal or empty sequences.
    """
    if len(first) != len(second) or not first:
        raise ValueError("a paired comparison needs the same problems in both runs, at least one")
    denominator = math.lcm(*(n for _, n in (*first, *second)))
    differences = [
        c1 * (denominator // n1) - c2 * (denominator // n2)
        for (c1, n1), (c2, n2) in zip(first, second, strict=True)
    ]
    scaled = [difference / denominator for difference in differences]
    se = se_total(scaled)
    return PairedComparison(
        problems=len(first),
        difference=math.fsum(scaled) / len(scaled),
        se=se,
        p=sign_flip_p(differences),
        resolvable=None if se is None else (Z_95 + Z_POWER_80) * se,
    )


def reproduction_z(value: float, published: float, se: float | None) -> float | None:
    """How many standard errors a pass@1 lies from a published one: Δ/(√2 · re-run SE).

    Both are taken to be runs of the same problems with the same n. None where the re-run error is
    undefined or 0. (PROTOCOLS §2; never for cons@64, whose published estimator is not known.)
    """
    return (value - published) / (math.sqrt(2) * se) if se else None


def sign_flip_p(differences: Sequence[int]) -> float:
    """Two-sided p of Σ differences when each one's sign is a fair coin: P(|S| ≥ |observed|)."""
    divisor = math.gcd(*differences)
    if divisor == 0:
        return 1.0
    sizes = [abs(difference) // divisor for difference in differences if difference]
    observed = abs(sum(differences)) // divisor
    total = sum(sizes)
    law = np.zeros(2 * total + 1)  # index s + total holds P(S = s)
    law[total] = 1.0
    reach = 0
    for size in sizes:
        reach += size
        low, high = total - reach, total + reach + 1
        window = law[low:high].copy()
        law[low:high] = 0.0
        law[low : high - size] += 0.5 * window[size:]
        law[low + size : high] += 0.5 * window[: len(window) - size]
    tail = law[total + observed :].sum()
    return float(1.0 if observed == 0 else min(1.0, 2 * tail))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm-adjusted p values, in the order given. (Holm 1979.)"""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted

"""Errors, intervals and paired tests of scores (PROTOCOLS §2). Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Z_95 = NormalDist().inv_cdf(0.975)
Z_POWER_80 = NormalDist().inv_cdf(0.80)

SIGNIFICANCE = 0.05
UNSEEN_PROBLEMS = 1.0  # weight of the problem that each end of an interval allows for
# Of a difference: so much of a problem that is lost whole, and as much of one that is won whole.
UNSEEN_EACH_WAY = 0.6

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
    """Two runs on the same N problems, first minus second; shares, so 0.05 is five points."""

    problems: int
    difference: float
    se: float | None
    p: float
    # smallest difference found with 80 % power at the 5 % level, by one comparison alone; None as
    # for the interval, and where so few problems can separate nothing
    resolvable: float | None
    # 95 % interval of the difference by itself, inside [−1, 1]; None where n is not the same
    low: float | None = None
    high: float | None = None
    same_n: bool = True  # whether both runs have as many samples of every problem

    @property
    def holds_zero(self) -> bool:
        """Whether the interval holds 0, whatever ``p`` says; it may where ``p`` is small."""
        return self.low is not None and self.high is not None and self.low <= 0 <= self.high


def compare_paired(first: Sequence[Count], second: Sequence[Count]) -> PairedComparison:
    """Compare two runs' (correct, samples) on the same problems, given in the same order.

    ``p`` is the two-sided sign-flip permutation p of the problem means' differences, exact by
    convolution over a common denominator. It takes differences of equal models to be symmetric,
    which they are for one n only: near the ceiling a single sample against 64 is usually a little
    better and seldom much worse. So where n differs ``p`` is the larger of that and
    :func:`redistribution_p`, and the interval, of which we know the coverage for one n only, is
    blank with ``resolvable``. Raises ValueError for unequal or empty sequences.
    """
    if len(first) != len(second) or not first:
        raise ValueError("a paired comparison needs the same problems in both runs, at least one")
    denominator = math.lcm(*(n for _, n in (*first, *second)))
    differences = [
        c1 * (denominator // n1) - c2 * (denominator // n2)
        for (c1, n1), (c2, n2) in zip(first, second, strict=True)
    ]
    scaled = [difference / denominator for difference in differences]
    se, mean = se_total(scaled), math.fsum(scaled) / len(scaled)
    if se is not None and min(differences) == max(differences):
        se = 0.0  # which floats only nearly say
    p = sign_flip_p(differences)
    if not _same_n(first, second):
        p = max(p, redistribution_p(first, second))
        return PairedComparison(len(first), mean, se, p, resolvable=None, same_n=False)
    low, high = difference_interval(scaled)
    return PairedComparison(
        problems=len(first),
        difference=mean,
        se=se,
        p=p,
        resolvable=(Z_95 + Z_POWER_80) * se if se and _can_separate(len(first)) else None,
        low=low,
        high=high,
    )


def _can_separate(problems: int) -> bool:
    """Whether the smallest p that sign flips of so many problems can give is below the level."""
    return 2 * 0.5**problems < SIGNIFICANCE


def _same_n(first: Sequence[Count], second: Sequence[Count]) -> bool:
    return all(n == m for (_, n), (_, m) in zip(first, second, strict=True))


def difference_interval(differences: Sequence[float]) -> tuple[float, float]:
    """95 % interval for the mean of paired differences in [−1, 1], at least one of them.

    Student's, with ``UNSEEN_EACH_WAY`` of a problem at −1 and as much at 1 among the N that were
    seen (Agresti and Min 2005 add half to each cell of one sample's 2 × 2 table): where few
    problems differ, those that would show how far others lie are usually not among them. It holds
    the mean, mirrors when the runs change places, and tends to d ± t·SE for many problems that
    differ. Unlike the sign-flip p it does not take equal models' differences to be symmetric, so
    it may hold 0 where p is small. Coverage by simulation: bench/coverage_differences.py; why this
    one: docs/adr/0008.
    """
    count = len(differences)
    total = count + 2 * UNSEEN_EACH_WAY
    centre = math.fsum(differences) / total
    squares = math.fsum(each**2 for each in differences) + 2 * UNSEEN_EACH_WAY
    error = math.sqrt((squares / total - centre**2) / (total - 1))
    reach = t_quantile(0.975, count) * error
    return max(-1.0, centre - reach), min(1.0, centre + reach)


def reproduction_z(value: float, published: float, se: float | None) -> float | None:
    """How many standard errors a pass@1 lies from a published one: Δ/(√2 · re-run SE).

    Both are taken to be runs of the same problems with the same n. None where the re-run error is
    undefined or 0. (PROTOCOLS §2; never for cons@64, whose published estimator is not known.)
    """
    return (value - published) / (math.sqrt(2) * se) if se else None


# The law of S is made over all its values. Runs of unlike n (63 against 64) make a lattice so fine
# that it would take minutes, and so many steps that the normal law is as good.
LATTICE = 500_000


def sign_flip_p(differences: Sequence[int]) -> float:
    """Two-sided p of Σ differences when each one's sign is a fair coin: P(|S| ≥ |observed|).

    Exact, but for sums over more than ``LATTICE`` steps: those by :func:`sign_flip_p_normal`.
    """
    divisor = math.gcd(*differences)
    if divisor == 0:
        return 1.0
    sizes = [abs(difference) // divisor for difference in differences if difference]
    observed = abs(sum(differences)) // divisor
    total = sum(sizes)
    if total > LATTICE:
        return sign_flip_p_normal(np.array([differences]) // divisor)[0]
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


# Beyond so many additions the law of a redistribution is made of so many draws that it is normal.
REDISTRIBUTION = 20_000_000


def redistribution_p(first: Sequence[Count], second: Sequence[Count]) -> float:
    """Two-sided p of the difference of means when equal models drew both runs: P(|T| ≥ |observed|).

    Each problem's right answers fall on its n₁ + n₂ samples by chance, so that those of the first
    run are hypergeometric: Fisher's exact test with the problems as strata, whatever each n is.
    Exact by convolution, but for laws of more than ``REDISTRIBUTION`` additions: those by the
    normal law with a continuity correction.
    """
    denominator = math.lcm(*(n for _, n in (*first, *second)))
    observed, lowest, variance = 0, 0, 0.0  # in steps of 1/denominator, summed over problems
    laws: list[tuple[int, list[float]]] = []  # (width of a step, chances of 0, 1, … steps)
    for (c1, n1), (c2, n2) in zip(first, second, strict=True):
        one, other, right = denominator // n1, denominator // n2, c1 + c2
        fewest, most = max(0, right - n2), min(right, n1)
        observed += c1 * one - c2 * other
        lowest += fewest * one - (right - fewest) * other
        if most > fewest:
            ways = [math.comb(n1, c) * math.comb(n2, right - c) for c in range(fewest, most + 1)]
            laws.append((one + other, [way / math.comb(n1 + n2, right) for way in ways]))
            share = right / (n1 + n2)
            spread = share * (1 - share) * n1 * n2 / (n1 + n2 - 1)
            variance += (one + other) ** 2 * spread
    if not laws:
        return 1.0
    unit = math.gcd(*(step for step, _ in laws))
    size = 1 + sum(step // unit * (len(law) - 1) for step, law in laws)
    if size * sum(len(law) for _, law in laws) > REDISTRIBUTION:
        return math.erfc(max(0.0, abs(observed) - unit / 2) / math.sqrt(2 * variance))
    whole, reach = np.zeros(size), 1
    whole[0] = 1.0
    for step, law in laws:
        window = whole[:reach].copy()
        whole[:reach] = 0.0
        for place, chance in enumerate(law):
            whole[place * step // unit : place * step // unit + reach] += chance * window
        reach += step // unit * (len(law) - 1)
    below = (-abs(observed) - lowest) // unit + 1  # that many places are as far down, or further
    above = -((lowest - abs(observed)) // unit)  # the first place as far up
    tails = whole[: max(0, below)].sum() + whole[max(0, above) :].sum()
    return float(min(1.0, tails)) if observed else 1.0


@cache
def t_quantile(p: float, freedom: int) -> float:
    """Quantile of Student's t for p in (0.5, 1) and a whole number of degrees of freedom ≥ 1.

    Bisection on θ = atan(t/√ν) of the finite sums for A(t|ν) = P(|T| ≤ t). (Abramowitz and Stegun
    1964, 26.7.3 and 26.7.4.)
    """
    low, high = 0.0, math.pi / 2
    while (middle := (low + high) / 2) not in (low, high):
        if _t_inside(middle, freedom) < 2 * p - 1:
            low = middle
        else:
            high = middle
    return math.sqrt(freedom) * math.tan(low)


def _t_inside(angle: float, freedom: int) -> float:
    """P(|T| ≤ √ν tan θ) for T of ν degrees of freedom."""
    square = math.cos(angle) ** 2
    odd = freedom % 2
    term, total = (math.cos(angle) if odd else 1.0), 0.0
    for k in range(1 + odd, freedom, 2):
        total += term
        term *= square * k / (k + 1)
    return (2 / math.pi * (angle + math.sin(angle) * total)) if odd else math.sin(angle) * total


def holm(p_values: npt.ArrayLike) -> list[float]:
    """Holm-adjusted p values, in the order given. (Holm 1979.)"""
    given = np.asarray(p_values, dtype=float)
    order = np.argsort(given, kind="stable")
    left = np.arange(len(given), 0, -1)  # hypotheses, less those before it
    adjusted = np.empty(len(given))
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, left * given[order]))
    found: list[float] = adjusted.tolist()
    return found


def sign_flip_p_normal(differences: npt.NDArray[np.int64]) -> list[float]:
    """:func:`sign_flip_p` of many sums at once, by the normal law; one p for each row of (R, N).

    S has mean 0 and variance Σd², and takes every second multiple of the differences' greatest
    common divisor g, so |S| is drawn in by g.
    """
    sums = np.abs(differences.sum(axis=1)).astype(float)
    steps = np.gcd.reduce(differences, axis=1)
    scales = np.sqrt(2.0 * (differences.astype(float) ** 2).sum(axis=1))
    reach = np.maximum(sums - steps, 0.0)
    return [
        math.erfc(distance / scale) if scale else 1.0
        for distance, scale in zip(reach.tolist(), scales.tolist(), strict=True)
    ]

"""Coverage of the 95 % interval of a paired difference: ``python -m bench.coverage_differences``.

A simulated pair of models has a success rate of its own on each of N problems and n samples of
each; an interval covers when it holds the difference that other problems of this kind would show.
The laws reach from one problem in a hundred that one side alone fails, to models that differ on
every problem. Written: bench/results/coverage_differences.json and a table.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from bench.coverage import SEED, WINDOW, keep
from evaluator.statistics import compare_paired, difference_interval, t_quantile

Rates = npt.NDArray[np.float64]
Pair = tuple[Rates, Rates, float]  # both models' rates by problem; what is true of all problems
Law = Callable[[np.random.Generator, int], Pair]
PROBLEMS = (20, 30, 45, 100, 500)
SAMPLES = (1, 4, 16, 64)
SOLVED, FAILED = 0.995, 0.02
TESTED = 60  # of the trials, for how often p and interval disagree: an exact p takes its time


def lost(rate: float, *, against: float = 0.0, failed: float = FAILED) -> Law:
    """The first fails a share of what else both solve, and wins ``against`` times as many."""

    def draw(rng: np.random.Generator, problems: int) -> Pair:
        losses = rate + rng.uniform(-1, 1) * min(WINDOW, rate / 2)
        lot = rng.random(problems)
        first, second = np.full((2, problems), SOLVED)
        first[lot < losses] = failed
        second[lot > 1 - against * losses] = failed
        return first, second, (against - 1) * losses * (SOLVED - failed)

    return draw


def else_equal(rate: float, mean: float, strength: float) -> Law:
    """Problems are as hard for both (Beta), but for a share that the first fails."""

    def draw(rng: np.random.Generator, problems: int) -> Pair:
        second = rng.beta(mean * strength, (1 - mean) * strength, problems)
        first = np.where(rng.random(problems) < rate, FAILED, second)
        return first, second, -rate * (mean - FAILED)

    return draw


def shifted(mean: float, strength: float, most: float) -> Law:
    """The first is better everywhere, by ``most`` where the second is right half of the time."""

    def draw(rng: np.random.Generator, problems: int) -> Pair:
        second = rng.beta(mean * strength, (1 - mean) * strength, problems)
        first = second + 4 * most * second * (1 - second)
        return first, second, 4 * most * mean * (1 - mean) * strength / (strength + 1)

    return draw


def related(one: float, other: float, strength: float, *, same: float) -> Law:
    """A share of the problems is as hard for both, the rest has rates of its own for each."""

    def draw(rng: np.random.Generator, problems: int) -> Pair:
        first = rng.beta(one * strength, (1 - one) * strength, problems)
        own = rng.beta(other * strength, (1 - other) * strength, problems)
        second = np.where(rng.random(problems) < same, first, own)
        return first, second, (1 - same) * (one - other)

    return draw


def laws() -> dict[str, Law]:
    """By what they are called in the results."""
    rates = (0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.2, 0.4)
    found = {f"{rate:g} lost": lost(rate) for rate in rates}
    found |= {f"{r:g} lost to 0.3": lost(r, failed=0.3) for r in (0.02, 0.05, 0.08)}
    found |= {f"{r:g} lost and won": lost(r, against=1.0) for r in (0.02, 0.05, 0.1, 0.3)}
    found |= {f"{r:g} lost, a third won": lost(r, against=1 / 3) for r in (0.04, 0.08, 0.15)}
    found |= {
        f"{r:g} lost, else equal, Beta {m:g}, {c:g}": else_equal(r, m, c)
        for r in (0.0, 0.03, 0.1) for m, c in ((0.5, 6.0), (0.7, 1.0), (0.9, 50.0))
    }  # fmt: skip
    found |= {
        f"better by {most:g}, Beta {m:g}, {c:g}": shifted(m, c, most)
        for m, c, most in ((0.5, 6.0, 0.1), (0.5, 50.0, 0.1), (0.9, 6.0, 0.1), (0.6, 1.0, 0.2))
    }
    for same in (0.0, 0.5):
        found |= {
            f"{one:g} against {other:g}, Beta {c:g}, {same:g} alike": related(
                one, other, c, same=same
            )
            for one, other, c in (
                (0.6, 0.5, 2.0),
                (0.9, 0.8, 2.0),
                (0.95, 0.95, 6.0),
                (0.3, 0.7, 1.0),
                (0.98, 0.94, 10.0),
            )
        }
    return found


def student(differences: Sequence[float]) -> tuple[float, float]:
    """d ± t·SE, of N problems as they were seen."""
    count, mean = len(differences), math.fsum(differences) / len(differences)
    squares = math.fsum((each - mean) ** 2 for each in differences)
    reach = t_quantile(0.975, count - 1) * math.sqrt(squares / (count - 1) / count)
    return mean - reach, mean + reach


INTERVALS: dict[str, Callable[[Sequence[float]], tuple[float, float]]] = {
    "ours": difference_interval,
    "student": student,
}


def measure(name: str, law: Law, problems: int, samples: int, trials: int) -> dict[str, float]:
    """Coverage and mean width of each interval, and how often ours and the test disagree."""
    rng = np.random.default_rng([SEED, problems, samples, sum(name.encode())])
    covered, width = dict.fromkeys(INTERVALS, 0), dict.fromkeys(INTERVALS, 0.0)
    doubted = tighter = 0
    for trial in range(trials):
        first, second, truth = law(rng, problems)
        right, left = rng.binomial(samples, first), rng.binomial(samples, second)
        differences = ((right - left) / samples).tolist()
        for key, interval in INTERVALS.items():
            low, high = interval(differences)
            covered[key] += low <= truth + 1e-12 and truth - 1e-12 <= high
            width[key] += high - low
        if trial < TESTED:
            found = compare_paired(
                [(int(c), samples) for c in right], [(int(c), samples) for c in left]
            )
            doubted += found.p < 0.05 and found.holds_zero
            tighter += found.p >= 0.05 and not found.holds_zero
    tested = min(trials, TESTED)
    return {
        **{key: covered[key] / trials for key in INTERVALS},
        **{f"{key} width": width[key] / trials for key in INTERVALS},
        "p small, interval holds 0": doubted / tested,
        "p not small, interval without 0": tighter / tested,
    }


def table(rows: Sequence[dict[str, float | str]]) -> str:
    """Lowest and highest coverage over the laws, for each N and n: Markdown."""
    lines = [
        "| N | n | laws | ours: lowest – highest | above 98 % | Student's: lowest – highest |",
        "|---|---|---|---|---|---|",
    ]
    for problems in PROBLEMS:
        for samples in SAMPLES:
            group = [r for r in rows if (r["problems"], r["samples"]) == (problems, samples)]
            ours, plain = ([float(row[key]) for row in group] for key in INTERVALS)
            lines.append(
                f"| {problems} | {samples} | {len(group)} | {100 * min(ours):.1f} – "
                f"{100 * max(ours):.1f} % | {sum(each > 0.98 for each in ours)} | "
                f"{100 * min(plain):.1f} – {100 * max(plain):.1f} % |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=600, help="simulated pairs for each")
    trials = parser.parse_args().trials
    rows: list[dict[str, float | str]] = [
        {
            "problems": problems,
            "samples": samples,
            "law": name,
            **measure(name, law, problems, samples, trials),
        }
        for problems in PROBLEMS
        for samples in SAMPLES
        for name, law in laws().items()
    ]
    keep("coverage_differences", trials, rows)
    print(table(rows))
    for key in INTERVALS:
        values = np.array([float(row[key]) for row in rows])
        print(
            f"{key}: {len(values)} configurations, below 92 %: {(values < 0.92).sum()}, below "
            f"93 %: {(values < 0.93).sum()}, above 98 %: {(values > 0.98).sum()}, lowest "
            f"{values.min():.3f}"
        )
    for row in sorted(rows, key=lambda row: float(row["ours"]))[:10]:
        print({key: row[key] for key in ("problems", "samples", "law", "ours", "student")})


if __name__ == "__main__":
    main()

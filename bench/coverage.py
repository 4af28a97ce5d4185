"""Coverage of the 95 % interval of pass@1, by simulation: ``python -m bench.coverage``.

A simulated benchmark draws the success rates of its N problems from a mixture of Beta laws and n
samples of each; an interval covers when it holds the mixture's mean, because that is what other
problems of this kind would score. Written: bench/results/coverage.json and a table.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from evaluator.statistics import mean_interval, se_total, wilson_interval

Mixture = list[tuple[float, float, float]]  # (weight, mean, concentration α + β) of each part
MEANS = (0.5, 0.7, 0.85, 0.9, 0.94, 0.96, 0.98)
PROBLEMS = (30, 100, 500)
SAMPLES = (1, 4, 16, 64)
WINDOW = 0.01  # coverage of a discrete statistic jumps from mean to mean: it is averaged over ±
SEED = 20261121


def mixtures(mean: float) -> dict[str, Mixture]:
    """Difficulty laws of one mean, from evenly hard problems to two kinds far apart."""
    laws: dict[str, Mixture] = {f"beta {c:g}": [(1.0, mean, c)] for c in (50, 6, 2, 0.5)}
    easy = (mean - 0.02) / (0.99 - 0.02)
    if 0 < easy < 1:
        laws["easy or impossible"] = [(easy, 0.99, 50.0), (1 - easy, 0.02, 50.0)]
    easy = (mean - 0.4) / (0.995 - 0.4)
    if 0 < easy < 1:
        laws["easy or middling"] = [(easy, 0.995, 200.0), (1 - easy, 0.4, 6.0)]
    upper = min(0.99, (1 + mean) / 2)
    easy = (mean - 0.05) / (upper - 0.05)
    laws["broad with a hard tail"] = [(easy, upper, 6.0), (1 - easy, 0.05, 10.0)]
    return laws


def plain(means: Sequence[float]) -> tuple[float, float]:
    """What PROTOCOLS §2 suggests: Wilson's interval at p(1−p)/SE², at N where SE is 0."""
    p, error = sum(means) / len(means), se_total(means)
    return wilson_interval(p, p * (1 - p) / error**2 if error else len(means))


INTERVALS: dict[str, Callable[[Sequence[float]], tuple[float, float]]] = {
    "ours": mean_interval,
    "plain": plain,
}


def coverage(
    mean: float, law: str, problems: int, samples: int, trials: int
) -> dict[str, tuple[float, float]]:
    """(coverage, mean width) of each interval over ``trials`` simulated benchmarks."""
    rng = np.random.default_rng([SEED, round(1000 * mean), problems, samples, sum(law.encode())])
    covered, width = dict.fromkeys(INTERVALS, 0), dict.fromkeys(INTERVALS, 0.0)
    for _ in range(trials):
        truth = rng.uniform(mean - WINDOW, mean + WINDOW)
        mixture = mixtures(truth)[law]
        kinds = rng.choice(len(mixture), p=[part[0] for part in mixture], size=problems)
        centre, strength = np.array([part[1:] for part in mixture])[kinds].T
        rates = rng.beta(centre * strength, (1 - centre) * strength)
        means = (rng.binomial(samples, rates) / samples).tolist()
        for name, interval in INTERVALS.items():
            low, high = interval(means)
            covered[name] += low <= truth <= high
            width[name] += high - low
    return {name: (covered[name] / trials, width[name] / trials) for name in INTERVALS}


def table(rows: Sequence[dict[str, object]]) -> str:
    """Lowest and highest coverage over the laws, for each N and n: Markdown."""
    lines = [
        "| N | n | configurations | ours: lowest – highest | plain: lowest – highest |",
        "|---|---|---|---|---|",
    ]
    for problems in PROBLEMS:
        for samples in SAMPLES:
            group = [r for r in rows if (r["problems"], r["samples"]) == (problems, samples)]
            cells = []
            for name in INTERVALS:
                values = [float(str(row[name])) for row in group]
                cells.append(f"{100 * min(values):.1f} – {100 * max(values):.1f} %")
            lines.append(f"| {problems} | {samples} | {len(group)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def keep(name: str, trials: int, rows: Sequence[Mapping[str, object]]) -> None:
    """Write bench/results/NAME.json."""
    result = {
        "trials": trials, "seed": SEED, "python": platform.python_version(),
        "numpy": np.__version__, "rows": rows,
    }  # fmt: skip
    path = Path(__file__).parent / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=2000, help="simulated benchmarks for each")
    trials = parser.parse_args().trials
    rows: list[dict[str, object]] = []
    for problems in PROBLEMS:
        for samples in SAMPLES:
            for mean in MEANS:
                # A law needs its mean's whole window to exist.
                laws = set(mixtures(mean - WINDOW)) & set(mixtures(mean + WINDOW))
                for law in sorted(laws):
                    found = coverage(mean, law, problems, samples, trials)
                    rows.append(
                        {"problems": problems, "samples": samples, "mean": mean, "law": law}
                        | {name: value for name, (value, _) in found.items()}
                        | {f"{name} width": width for name, (_, width) in found.items()}
                    )
    keep("coverage", trials, rows)
    print(table(rows))
    for name in INTERVALS:
        values = np.array([float(str(row[name])) for row in rows])
        print(
            f"{name}: {len(values)} configurations, below 93 %: {(values < 0.93).sum()}, "
            f"above 98 %: {(values > 0.98).sum()}, lowest {values.min():.3f}, "
            f"highest {values.max():.3f}"
        )
    for row in sorted(rows, key=lambda row: float(str(row["ours"]))):
        if not 0.93 <= float(str(row["ours"])) <= 0.98:
            print({key: row[key] for key in ("problems", "samples", "mean", "law", "ours")})


if __name__ == "__main__":
    main()

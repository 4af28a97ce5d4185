"""Our performances beside Codeforces' own update, and intervals over contests: ``-m bench.rating``.

Part 1 needs the rounds of ../shared/data: every participant is taken out of his round, his score is
rated by ours, and compared with the file's ``perfs``: the rating at which Codeforces' update of it
would be zero. The update is computed here too, so that the difference is explained and not assumed.
Part 2 simulates contests: mean width and coverage of the interval. Written:
bench/results/rating.json and tables.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluator.contests import Array, Standings, read_contest
from evaluator.rating import ContestRating, Field, mean_rating, rate

ROUNDS = Path(__file__).parents[2] / "shared" / "data" / "code"
LOWEST, HIGHEST = -1000, 8000  # ratings for which seeds are tabled
COMPARED = (1200, 2400)  # ratings before the round of those who enter the medians
CONTESTS = (2, 3, 5, 10, 20, 40)
SEED = 20261121


@dataclass(frozen=True)
class CodeforcesUpdate:
    """Codeforces' rating change of everybody in a contest, after Mirzayanov's published code.

    Raw change: (R(√(place · seed)) − rating) / 2, truncated, where seed is the expected place and
    R the rating that has a seed, both without the contestant himself. Then one constant is added to
    all, so that the changes sum to about −M, and another in [−10, 0] for the sum of the top.
    """

    changes: Array  # (M,) whole numbers, computed
    constant: int  # what was added to all
    zero: Array  # (M,) the rating that each one's place would leave unchanged; inf for place 1

    @classmethod
    def of(cls, standings: Standings) -> CodeforcesUpdate:
        """Compute it for a contest: about a second for 15,000 participants."""
        field = Field(standings.ratings)
        table = np.array([field.seed(float(r)) for r in range(LOWEST, HIGHEST + 1)])
        ratings = standings.ratings.astype(int)
        places = places_of(standings)
        raw = np.array(
            [_raw_change(table, p, own, own) for p, own in zip(places, ratings, strict=True)]
        )
        constant = math.trunc(-raw.sum() / len(raw)) - 1
        top = np.argsort(-standings.ratings, kind="stable")[
            : min(len(raw), 4 * round(math.sqrt(len(raw))))
        ]
        constant += min(0, max(-10, math.trunc(-(raw[top] + constant).sum() / len(top))))
        known: dict[tuple[int, int], float] = {}
        for key in zip(places.tolist(), ratings.tolist(), strict=True):
            if key not in known:
                known[key] = _zero(table, *key, constant)
        zero = [known[key] for key in zip(places.tolist(), ratings.tolist(), strict=True)]
        return cls(raw + constant, constant, np.array(zero))


def places_of(standings: Standings) -> Array:
    """(M,) place of everybody, the worst of a tie."""
    _, group, sizes = np.unique(
        np.column_stack([-standings.points, standings.penalty]),
        axis=0, return_inverse=True, return_counts=True,
    )  # fmt: skip
    places: Array = np.cumsum(sizes)[group.ravel()].astype(float)
    return places


def _without_self(rating: float, own: int) -> float:
    return float(1.0 / (1.0 + 10.0 ** ((rating - own) / 400.0)))


def _raw_change(table: Array, place: int, own: int, assumed: int) -> int:
    """Change, before the constants, of who has rating ``assumed`` and is ``own`` in the table."""
    seed = table[assumed - LOWEST] - _without_self(assumed, own)
    target = math.sqrt(place * seed)
    low, high = 1, HIGHEST
    while high - low > 1:
        middle = (low + high) // 2
        if table[middle - LOWEST] - _without_self(middle, own) < target:
            high = middle
        else:
            low = middle
    return math.trunc((low - assumed) / 2)


def _zero(table: Array, place: int, own: int, constant: int) -> float:
    """The least rating whose change is not above zero; inf for the winner, who always gains."""
    if place == 1:
        return math.inf
    low, high = LOWEST // 2, HIGHEST // 2 + 2000
    while high - low > 1:
        middle = (low + high) // 2
        if _raw_change(table, place, own, middle) + constant <= 0:
            high = middle
        else:
            low = middle
    return high


def compare_round(path: Path) -> dict[str, object]:
    """Our performance less the file's, and how well the computed update explains the file."""
    standings = read_contest(path).standings
    document = json.loads(gzip.decompress(path.read_bytes()))
    perfs = {name: float(value) for name, value in document["perfs"]}
    theirs = np.array([perfs[row[0]] for row in document["data"]])
    published = np.array([row[4] for row in document["data"]])
    update = CodeforcesUpdate.of(standings)
    chosen = [
        row
        for row in range(len(standings))
        if COMPARED[0] <= standings.ratings[row] <= COMPARED[1] and math.isfinite(theirs[row])
    ]
    found: dict[tuple[int, int], tuple[float, bool]] = {}
    ours, clamped = np.empty(len(chosen)), np.empty(len(chosen), dtype=bool)
    places = places_of(standings)
    for at, row in enumerate(chosen):
        key = (int(places[row]), int(standings.ratings[row]))
        if key not in found:  # taking out another of the same rating leaves the same field
            left = rate(standings.without(row), standings.points[row], standings.penalty[row])
            assert left.place == key[0]
            found[key] = (left.rating, left.clamped)
        ours[at], clamped[at] = found[key]
    difference = (ours - theirs[chosen])[~clamped]
    finite = np.isfinite(theirs)
    explained = update.zero[finite] - theirs[finite]
    return {
        "round": path.name.removeprefix("cf_round_").removesuffix(".json.gz"),
        "participants": len(standings),
        "compared": len(difference),
        "clamped": int(clamped.sum()),
        "median": float(np.median(difference)),
        "median_with_clamped": float(np.median(ours - theirs[chosen])),
        "percentiles_5_25_75_95": [float(q) for q in np.percentile(difference, [5, 25, 75, 95])],
        "constant": update.constant,
        "changes_equal": float(np.mean(update.changes == published)),
        "changes_within_1": float(np.mean(np.abs(update.changes - published) <= 1)),
        "zero_equals_perfs": float(np.mean(explained == 0)),
        "zero_within_1": float(np.mean(np.abs(explained) <= 1)),
        "zero_less_perfs_median": float(np.median(explained)),
    }


def simulate_performances(count: int, skill: float, rng: np.random.Generator) -> Array:
    """(count,) performances of a model of one skill in simulated contests of 400 participants.

    Everybody solves a problem of difficulty d with the chance that Elo gives, and has a form of the
    day (σ = 150): the model's place is what is left to chance.
    """
    performances = np.empty(count)
    for at in range(count):
        ratings = np.round(rng.normal(1450.0, 350.0, 400))
        difficulty = np.sort(rng.uniform(800.0, 2800.0, 6))
        worth = 500.0 * np.arange(1, 7)
        skills = np.append(ratings, skill) + rng.normal(0.0, 150.0, 401)
        chance = 1.0 / (1.0 + 10.0 ** ((difficulty - skills[:, None]) / 400.0))
        points = (rng.random(chance.shape) < chance) @ worth
        points[:-1] -= rng.uniform(0.0, 100.0, 400)  # time: few ties among people
        field = Standings(points[:-1], np.zeros(400), ratings)
        performances[at] = rate(field, points[-1], 0.0).rating
    return performances


def interval_quality(skill: float, pool: int, trials: int) -> list[dict[str, float]]:
    """Mean width and coverage by number of contests; the truth is the mean of ``pool`` contests."""
    rng = np.random.default_rng([SEED, int(skill)])
    performances = simulate_performances(pool, skill, rng)
    truth = float(performances.mean())
    rows = []
    for contests in CONTESTS:
        widths, covered = np.empty(trials), 0
        for trial in range(trials):
            drawn = rng.choice(performances, contests)
            rating = mean_rating([ContestRating("", float(p), 0.0, 0.0) for p in drawn])
            assert rating is not None
            assert rating.low is not None
            assert rating.high is not None
            widths[trial] = rating.high - rating.low
            covered += rating.low <= truth <= rating.high
        rows.append(
            {"skill": skill, "contests": contests, "mean_width": float(widths.mean()),
             "coverage": covered / trials, "truth": truth}
        )  # fmt: skip
    return rows


def print_tables(
    rounds: Sequence[dict[str, object]], intervals: Sequence[dict[str, float]]
) -> None:
    for row in rounds:
        print(json.dumps(row))
    print("| skill | contests | mean width | coverage |\n|---|---|---|---|")
    for each in intervals:
        print(
            f"| {each['skill']:.0f} | {each['contests']} | {each['mean_width']:.0f} "
            f"| {100 * each['coverage']:.1f} % |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=4000, help="intervals for each row")
    parser.add_argument("--pool", type=int, default=4000, help="simulated contests for each skill")
    options = parser.parse_args()
    rounds = [compare_round(path) for path in sorted(ROUNDS.glob("cf_round_*.json.gz"))]
    intervals = [
        row
        for skill in (1000.0, 1500.0, 2000.0)
        for row in interval_quality(skill, options.pool, options.trials)
    ]
    print_tables(rounds, intervals)
    result = {
        "seed": SEED, "pool": options.pool, "trials": options.trials,
        "python": platform.python_version(), "numpy": np.__version__,
        "rounds": rounds, "intervals": intervals,
    }  # fmt: skip
    path = Path(__file__).parent / "results" / "rating.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

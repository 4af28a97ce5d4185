"""What a set of graded samples amounts to (PROTOCOLS §2). Pure functions; undefined is None."""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluator.errors import InputError
from evaluator.protocol import MOST_SAMPLES
from evaluator.records import Outcome, Problem
from evaluator.statistics import mean_interval, se_rerun, se_total

SCHEMA = "retort/metrics/1"
# The judge's verdicts in the order in which they are shown (evaluator.sandbox.judge).
VERDICTS = ("AC", "WA", "TLE", "MLE", "RE", "CE", "OLE", "JE")
CONSENSUS_K = 64  # cons@64 is the figure of the R1 paper; blank where n is smaller

Equal = Callable[[Sequence[tuple[str, str]]], list[bool]]
Floats = npt.NDArray[np.float64]


def pass_at_k(n: int, c: int, k: int) -> float | None:
    """Chance that at least one of k samples is right: 1 − C(n−c, k)/C(n, k).

    Chen et al. 2021, eq. 1, with ``c`` of ``n`` samples correct. None for k > n.
    """
    if k > n:
        return None
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def cons_at_k(n: int, class_sizes: Sequence[int], correct: Collection[int], k: int) -> float | None:
    """Expected consensus score of k of the n samples drawn without replacement, exactly.

    ``class_sizes`` are the sizes of the answer classes, ``correct`` the indices of the right ones
    (at most one by equivalence; by strings, several). The n − Σ sizes others abstain. A subset
    scores the share of right classes among its largest ones, and 0 when all abstain. None for
    k > n. With k = 1 this is pass@1.
    """
    if k > n or k < 1:
        return None
    right = tuple(sorted(class_sizes[i] for i in correct))
    wrong = tuple(sorted(size for i, size in enumerate(class_sizes) if i not in set(correct)))
    return float(_cons_curve(n, right, wrong)[k])


@lru_cache(maxsize=4096)
def _cons_curve(n: int, right: tuple[int, ...], wrong: tuple[int, ...]) -> Floats:
    """cons@k for k = 0 … n; index is k. See :func:`cons_at_k`."""
    abstaining = n - sum(right) - sum(wrong)
    if abstaining < 0:
        raise ValueError("class sizes exceed the number of samples")
    curve = np.zeros(n + 1)
    abstain = np.array([math.comb(abstaining, a) for a in range(abstaining + 1)], dtype=float)
    for index, size in enumerate(right):
        others = right[:index] + right[index + 1 :] + wrong
        for votes in range(1, size + 1):
            # counts[t, v]: ways for the others to cast v votes, none above ``votes``, t equal to it
            counts = _capped_votes(n - votes, others, votes)
            shares = (counts / np.arange(1, counts.shape[0] + 1)[:, None]).sum(axis=0)
            ways = np.convolve(shares, abstain)[: n - votes + 1]
            curve[votes : votes + len(ways)] += math.comb(size, votes) * ways
    subsets: Floats = np.array([math.comb(n, k) for k in range(n + 1)], dtype=float)
    return curve / subsets


def _capped_votes(total: int, sizes: Sequence[int], cap: int) -> Floats:
    """Ways to choose v ≤ total samples from classes, at most ``cap`` from each.

    Shape (T + 1, total + 1): the row is the number of classes that give exactly ``cap``.
    """
    ties = min(total // cap, sum(size >= cap for size in sizes))
    counts = np.zeros((ties + 1, total + 1))
    counts[0, 0] = 1.0
    for size in sizes:
        extended = np.zeros_like(counts)
        for votes in range(min(size, cap - 1, total) + 1):
            extended[:, votes:] += math.comb(size, votes) * counts[:, : total + 1 - votes]
        if size >= cap and ties and cap <= total:
            extended[1:, cap:] += math.comb(size, cap) * counts[:-1, : total + 1 - cap]
        counts = extended
    return counts


@dataclass
class _Tally:
    """One problem's scored samples. Errors and missing samples are ``absent``.

    What is counted is counted once, when it is first asked for: all rows are there by then.
    """

    problem: Problem
    asked: int
    rows: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    # Sample indices; [0] represents. None where answers do not vote.
    classes: list[list[int]] | None = None
    string_classes: list[list[int]] | None = None

    @cached_property
    def scored(self) -> list[int]:
        return sorted(s for s, row in self.rows.items() if not Outcome(row["outcome"]).is_error)

    @cached_property
    def n(self) -> int:
        return len(self.scored)

    @cached_property
    def correct(self) -> int:
        return sum(self.is_correct(sample) for sample in self.scored)

    def is_correct(self, sample: int) -> bool:
        return Outcome(self.rows[sample]["outcome"]) is Outcome.CORRECT

    def consensus(self, classes: Sequence[Sequence[int]] | None, k: int) -> float | None:
        """cons@k of these classes; one whose members' outcomes differ counts as their mean.

        Equivalent answers never differ, but equal strings may where a person disputes some of them.
        """
        if classes is None:
            return None
        sizes = [len(members) for members in classes]
        right = [sum(map(self.is_correct, members)) for members in classes]
        whole = [i for i, size in enumerate(sizes) if right[i] == size]
        score = cons_at_k(self.n, sizes, whole, k)
        for i, size in enumerate(sizes):
            if score is not None and 0 < right[i] < size:
                score += right[i] / size * (cons_at_k(self.n, sizes, [i], k) or 0.0)
        return score


def aggregate(
    problems: Sequence[Problem],
    rows: Iterable[Mapping[str, Any]],
    *,
    benchmark: str,
    grader: str,
    samples: int,
    measurement_hash: str,
    run_fingerprint: str,
    equal: Equal | None,
) -> dict[str, Any]:
    """Return PROTOCOLS §2's metrics.json for graded ``rows``.

    A row is ``{problem_id, sample, outcome, answer, completion_tokens?, judged?}``; ``samples`` is
    the n asked for per problem, and a sample without a row counts as ``engine_error``. While errors
    remain every score is None and ``bounds`` says between what it lies. ``equal`` tells which
    pairs of answers are equivalent; it is None where answers are programs, which do not vote: then
    cons@k is blank, and ``verdicts`` counts what the judge said of them. Raises
    InputError for more than MOST_SAMPLES samples, no problems, an unknown problem, a sample outside
    0 … n−1 or a key that comes twice.
    """
    tallies = _tally(problems, rows, samples)
    outcomes = Counter(dict.fromkeys(Outcome, 0))
    for tally in tallies:
        outcomes.update(Outcome(row["outcome"]) for row in tally.rows.values())
        outcomes[Outcome.ENGINE_ERROR] += samples - len(tally.rows)
    complete = not any(outcomes[outcome] for outcome in Outcome if outcome.is_error)
    if equal is not None:
        _classify(tallies, equal)
    ks = sorted({2**i for i in range(samples.bit_length())} | {samples, CONSENSUS_K})

    def curve(score: Callable[[_Tally, int], float | None]) -> dict[str, float | None]:
        return {str(k): _mean([score(t, k) for t in tallies] if complete else []) for k in ks}

    figures = {
        "schema": SCHEMA,
        "benchmark": benchmark,
        "grader": grader,
        "problems": len(tallies),
        "samples": samples,
        "measurement_hash": measurement_hash,
        "run_fingerprint": run_fingerprint,
        "complete": complete,
        "bounds": None if complete else _bounds(tallies),
        "outcomes": {str(outcome): outcomes[outcome] for outcome in Outcome},
        "pass@1": _pass_at_1(tallies if complete else []),
        "pass@k": curve(lambda tally, k: pass_at_k(tally.n, tally.correct, k)),
        "cons@k": curve(lambda tally, k: tally.consensus(tally.classes, k)),
        "cons@k_string": curve(lambda tally, k: tally.consensus(tally.string_classes, k)),
        "tokens": _tokens(tallies),
        "by": {
            name: _breakdown(tallies, name) if complete else {} for name in ("subject", "level")
        },
        "per_problem": [_problem_row(tally) for tally in tallies],
    }
    return figures if equal is not None else figures | _judged(tallies)


def _judged(tallies: Sequence[_Tally]) -> dict[str, Any]:
    """What the judge said of the programs, and how they were isolated from the machine.

    Completions without a program are in no verdict's count: ``outcomes`` tells of them.
    """
    found = [row["judged"] for t in tallies for row in t.rows.values() if row.get("judged")]
    counts = Counter(judged["verdict"] for judged in found)
    return {
        "verdicts": {verdict: counts[verdict] for verdict in VERDICTS},
        "isolation": sorted({judged["isolation"] for judged in found}),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean, or None where a value is undefined or there are none."""
    numbers = [value for value in values if value is not None]
    if not numbers or len(numbers) < len(values):
        return None
    return math.fsum(numbers) / len(numbers)


def _tally(
    problems: Sequence[Problem], rows: Iterable[Mapping[str, Any]], samples: int
) -> list[_Tally]:
    """Sort the rows by problem, in the problems' order."""
    if samples > MOST_SAMPLES:
        raise InputError(
            f"samples: {samples} of a problem are more than {MOST_SAMPLES}; score fewer of them."
        )
    if not problems:
        raise InputError("problems: there are none to aggregate over; import the benchmark first.")
    tallies = {problem.id: _Tally(problem, samples) for problem in problems}
    for row in rows:
        problem_id, sample = str(row["problem_id"]), int(row["sample"])
        tally = tallies.get(problem_id)
        if tally is None:
            raise InputError(
                f"problem_id: {problem_id!r} is not a problem of this benchmark; "
                "grade against the set that the completions were drawn for."
            )
        if not 0 <= sample < samples:
            raise InputError(
                f"sample: {sample} of problem {problem_id!r} is outside 0 … {samples - 1}; "
                "raise the protocol's samples or leave the row out."
            )
        if sample in tally.rows:
            raise InputError(
                f"sample: {sample} of problem {problem_id!r} comes twice; keep one row of each key."
            )
        tally.rows[sample] = row
    return list(tallies.values())


def normalised_string(answer: str) -> str:
    """What the string vote compares: the answer without white space."""
    return "".join(answer.split())


def _classify(tallies: Sequence[_Tally], equal: Equal) -> None:
    """Fill in the answer classes, comparing all problems' answers in few batches.

    All correct samples are one class, which no other sample joins: else cons@1 would differ from
    pass@1. Every other sample joins the first class, in sample order, whose representative it
    equals.
    """
    waiting: list[tuple[_Tally, list[list[int]]]] = []
    for tally in tallies:
        by_string: dict[str, list[int]] = defaultdict(list)
        for sample in tally.scored:
            answer = tally.rows[sample]["answer"]
            if answer is not None:
                by_string[normalised_string(answer)].append(sample)
        tally.string_classes = list(by_string.values())
        right = [s for s in tally.scored if tally.is_correct(s)]
        tally.classes = [right] if right else []
        groups = [[s for s in group if s not in set(right)] for group in by_string.values()]
        waiting.append((tally, [group for group in groups if group]))
    while waiting := [(tally, groups) for tally, groups in waiting if groups]:
        pairs = [
            (tally.rows[groups[0][0]]["answer"], tally.rows[group[0]]["answer"])
            for tally, groups in waiting
            for group in groups[1:]
        ]
        verdicts = iter(equal(pairs) if pairs else [])
        following = []
        for tally, groups in waiting:
            joined, rest = list(groups[0]), []
            for group in groups[1:]:
                if next(verdicts):
                    joined += group
                else:
                    rest.append(group)
            assert tally.classes is not None
            tally.classes.append(sorted(joined))
            following.append((tally, rest))
        waiting = following


def _pass_at_1(tallies: Sequence[_Tally]) -> dict[str, float | None]:
    """pass@1[avg-of-n] with its errors and its 95 % interval; all None for no problems."""
    if not tallies:
        return dict.fromkeys(("value", "se_total", "se_rerun", "low", "high"))
    means = [tally.correct / tally.n for tally in tallies]
    value = math.fsum(means) / len(means)
    low, high = mean_interval(means)
    return {
        "value": value,
        "se_total": se_total(means),
        "se_rerun": se_rerun([(tally.correct, tally.n) for tally in tallies]),
        "low": low,
        "high": high,
    }


def _bounds(tallies: Sequence[_Tally]) -> dict[str, float]:
    """pass@1 if every errored or missing sample were wrong, and if each were right."""
    low = math.fsum(tally.correct / tally.asked for tally in tallies)
    high = math.fsum((tally.correct + tally.asked - tally.n) / tally.asked for tally in tallies)
    return {"low": low / len(tallies), "high": high / len(tallies)}


def _tokens(tallies: Sequence[_Tally]) -> dict[str, float | None]:
    """Length of the completions in tokens, where the engine counted them."""
    counts = [
        int(row["completion_tokens"])
        for tally in tallies
        for row in tally.rows.values()
        if row.get("completion_tokens") is not None
    ]
    if not counts:
        return dict.fromkeys(("mean", "median", "p95", "max"))
    return {
        "mean": statistics.fmean(counts),
        "median": float(statistics.median(counts)),
        "p95": float(np.quantile(counts, 0.95)),
        "max": float(max(counts)),
    }


def _breakdown(tallies: Sequence[_Tally], name: str) -> dict[str, dict[str, Any]]:
    """pass@1 for each subject or level that the problems name."""
    groups: dict[str, list[_Tally]] = defaultdict(list)
    for tally in tallies:
        value = getattr(tally.problem, name)
        if value:
            groups[value].append(tally)
    return {
        value: {"problems": len(group), **_pass_at_1(group)}
        for value, group in sorted(groups.items())
    }


def _problem_row(tally: _Tally) -> dict[str, Any]:
    """What a page shows of one problem.

    ``majority`` is an answer of the largest class, ``votes`` the samples in that class; both None
    where nothing voted.
    """
    largest = max(tally.classes or (), key=len, default=None)
    return {
        "id": tally.problem.id,
        "n": tally.n,
        "correct": tally.correct,
        "majority": None if largest is None else tally.rows[largest[0]]["answer"],
        "votes": None if largest is None else len(largest),
        "cons": tally.consensus(tally.classes, tally.n) if tally.n else None,
    }

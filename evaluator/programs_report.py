"""What tables and pages say of judged programs: verdicts, ratings, and what to know of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from evaluator.metrics import VERDICTS
from evaluator.rating import ATTEMPTS, CODEELO_SMALLEST, Mode

VERDICT_WORDS: Mapping[str, str] = {
    "AC": "accepted",
    "WA": "wrong answer",
    "TLE": "time limit exceeded",
    "MLE": "memory limit exceeded",
    "RE": "runtime error",
    "CE": "does not compile",
    "OLE": "too much output",
    "JE": "judge error",
}
NO_PROGRAM = "no program"
_MODE_WORDS = {Mode.ELO: "", Mode.CODEELO: ", CodeElo's rule"}
_RATINGS = ("rating@1", f"rating@{ATTEMPTS}")


@dataclass(frozen=True, slots=True)
class VerdictCount:
    """How many completions got one verdict, or have no program."""

    verdict: str
    words: str
    count: int
    share: float  # of all completions asked for, in [0, 1]


@dataclass(frozen=True, slots=True)
class RatingRow:
    """One rating in Elo points; None where undefined. ``clamped`` is a share, in [0, 1]."""

    name: str
    mode: str
    value: float | None
    low: float | None = None
    high: float | None = None
    percentile: float | None = None
    population: str = ""
    contests: int = 0
    clamped: float = 0.0

    @property
    def title(self) -> str:
        """The estimator, with the rule where it is not PROTOCOLS' own."""
        return f"{self.name}{_MODE_WORDS[Mode(self.mode)]}"

    @property
    def bound(self) -> str:
        """A mark where part of the mass lay outside the range in which a place has a rating."""
        return "clamped" if self.clamped else ""


def verdicts(metrics: Mapping[str, Any]) -> list[VerdictCount]:
    """The verdicts that occurred, then the completions without a program; they sum to all."""
    counts = metrics.get("verdicts")
    if counts is None:
        return []
    total = metrics["problems"] * metrics["samples"]
    found = [
        VerdictCount(verdict, VERDICT_WORDS[verdict], counts[verdict], counts[verdict] / total)
        for verdict in VERDICTS
        if counts[verdict]
    ]
    rest = total - sum(counts.values())
    return [*found, VerdictCount("", NO_PROGRAM, rest, rest / total)] if rest else found


def ratings(metrics: Mapping[str, Any]) -> list[RatingRow]:
    """rating@1 and rating@8 by both rules; none without contests."""
    rating = metrics.get("rating") or {}
    rows = []
    for mode in Mode:
        found = rating.get(str(mode))
        if found is None:
            continue
        population = (found.get("population") or {}).get("name", "")
        for name in _RATINGS:
            given = found.get(name)
            rows.append(
                RatingRow(name, str(mode), None)
                if given is None
                else RatingRow(name, str(mode), **given, population=population)
            )
    return rows


def notes(metrics: Mapping[str, Any]) -> list[str]:
    """Sentences that a reader of the figures needs; each is true by itself."""
    return [*_isolation(metrics), *_rating_notes(metrics)]


def unsafe(metrics: Mapping[str, Any]) -> bool:
    """Whether programs ran without isolation."""
    return any(each.startswith("none") for each in metrics.get("isolation") or ())


def _isolation(metrics: Mapping[str, Any]) -> Iterator[str]:
    if unsafe(metrics):
        told = next(each for each in metrics["isolation"] if each.startswith("none"))
        yield (
            f"The programs ran without isolation: {told}. They could have read the tests' answers, "
            "so that the score is only as good as the model is honest."
        )


def _rating_notes(metrics: Mapping[str, Any]) -> Iterator[str]:
    rating = metrics.get("rating")
    if rating is None:
        return
    if rating.get("missing"):
        yield rating["missing"]
        return
    elo = rating[Mode.ELO]
    population = elo["population"]
    yield f"Percentiles are shares of {population['size']:,} ratings: {population['name']}."
    if len(elo["contests"]) == 1:
        yield "One contest says nothing about another: there is no interval."
    clamped = [row for row in ratings(metrics) if row.clamped]
    if clamped:
        told = ", ".join(f"{row.title} {100 * row.clamped:.0f} %" for row in clamped)
        yield (
            f"Clamped ({told}): that share of the contests has no rating at the place reached, and "
            "the nearest one stands for it."
        )
    if elo[_RATINGS[1]] is None:
        yield (
            f"{_RATINGS[1]} is blank: a problem has fewer than {ATTEMPTS} samples, none accepted."
        )
    absent = [
        f"{contest['id']}/{index}"
        for contest in elo["contests"]
        for index in contest["unsampled_problems"]
    ]
    if absent:
        some = ", ".join(absent[:8]) + (" …" if len(absent) > 8 else "")
        yield f"Not in the benchmark, and counted as not solved: {some}."
    if dropped := rating[Mode.CODEELO]["dropped"]:
        yield (
            f"CodeElo's rule leaves out contests of {CODEELO_SMALLEST} rated participants or "
            f"fewer: {', '.join(dropped)}."
        )

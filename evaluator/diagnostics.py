"""What goes wrong with completions besides wrong answers: cut off, running in circles, too long.

Pure functions over counts and rows: a page counts in its database, a report in memory.
"""

from __future__ import annotations

import bisect
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import exp, log
from statistics import fmean, median
from typing import Any

from evaluator.protocol import Protocol
from evaluator.records import FinishReason, Outcome

# From this share of completions on, the rate is an alarm. A cut or looping completion scores 0
# whatever the model knew, so the share is the most that pass@1 may be too low. A point is more than
# a re-run's error hides: sqrt(Σ p̂(1−p̂)/(n−1))/N is 0.8 points for AIME × 64 at a mean p̂(1−p̂) of
# 0.12, and 0.5 for MATH-500 × 4 at 0.04.
NOTABLE_SHARE = 0.01
# From here on the figure may say more of the limit, or the loop, than of the model: ten points are
# most of what parts the R1 paper's students of 7B and 14B (AIME 2024: 55.5 and 69.7).
GRAVE_SHARE = 0.10
# Below it endless repetition is expected: DeepSeek-R1's README advises 0.5 to 0.7 against it.
LOOPING_TEMPERATURE = 0.5

_OCTAVES = 4  # lengths that span more than so many doublings are binned by doubling
_LINEAR_BINS = 10


@dataclass(frozen=True, slots=True)
class Alarm:
    """A rate that matters, in a sentence; ``grave`` where the score should not be read as it is."""

    sentence: str
    grave: bool


@dataclass(frozen=True, slots=True)
class Endings:
    """How completions ended. Counts of completions; tokens where the engine counted them."""

    completions: int  # that came: without engine errors
    cut: int = 0  # stopped by the token limit, whatever became of them
    truncated: int = 0  # of those, without an answer and not looping
    looped: int = 0  # no answer, the tail a repetition (PROTOCOLS §2)
    unknown: int = 0  # whose finish reason nobody told
    cut_at_least_tokens: int | None = None  # shortest and longest of the cut ones
    cut_at_most_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class LengthBin:
    """Completions of ``first`` to ``last`` tokens, both included, by outcome."""

    first: int
    last: int
    outcomes: dict[str, int]

    @property
    def completions(self) -> int:
        """How many completions are this long."""
        return sum(self.outcomes.values())

    @property
    def right_share(self) -> float:
        """The share of them that is correct, in [0, 1]."""
        return self.outcomes.get(Outcome.CORRECT, 0) / self.completions


@dataclass(frozen=True, slots=True)
class Lengths:
    """Length against correctness. Undefined is None; errors and uncounted lengths are left out."""

    counted: int  # completions whose tokens the engine counted
    uncounted: int
    median_right: float | None = None  # tokens
    median_other: float | None = None
    bins: list[LengthBin] = field(default_factory=list)
    mixed_problems: int = 0  # that some samples solved and others did not
    ratio: float | None = None  # there: length of a correct sample over that of another


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """What a page, a report or a table says beside the scores."""

    lengths: Lengths
    alarms: list[Alarm]
    endings: Endings

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the report; shares in [0, 1]."""
        lengths = asdict(self.lengths)
        for row, found in zip(lengths["bins"], self.lengths.bins, strict=True):
            row |= {"completions": found.completions, "right_share": found.right_share}
        return {
            "endings": asdict(self.endings),
            "alarms": [asdict(alarm) for alarm in self.alarms],
            "lengths": lengths,
        }


def count_endings(rows: Iterable[Mapping[str, Any]]) -> Endings:
    """How ``rows`` ``{outcome, finish_reason, completion_tokens}`` ended; errors are left out."""
    scored = [row for row in rows if not Outcome(row["outcome"]).is_error]
    cut = [row for row in scored if row["finish_reason"] == FinishReason.LENGTH]
    tokens = [row["completion_tokens"] for row in cut if row["completion_tokens"] is not None]
    outcomes = [row["outcome"] for row in scored]
    return Endings(
        completions=len(scored),
        cut=len(cut),
        truncated=outcomes.count(Outcome.TRUNCATED),
        looped=outcomes.count(Outcome.LOOPED),
        unknown=sum(row["finish_reason"] == FinishReason.UNKNOWN for row in scored),
        cut_at_least_tokens=min(tokens, default=None),
        cut_at_most_tokens=max(tokens, default=None),
    )


def diagnose(
    rows: Iterable[Mapping[str, Any]], *, protocol: Protocol, engine: Mapping[str, Any]
) -> Diagnostics:
    """Count ``rows`` ``{problem_id, outcome, finish_reason, completion_tokens}``, one a sample.

    ``engine`` is what drew them, as it describes itself.
    """
    scored = [row for row in rows if not Outcome(row["outcome"]).is_error]
    endings = count_endings(scored)
    return Diagnostics(
        lengths=count_lengths(scored),
        alarms=alarms(
            endings,
            max_tokens=protocol.sampling.max_tokens,
            temperature=protocol.sampling.temperature,
            replayed=engine["name"] == "replay",
            context_tokens=engine.get("context_tokens"),
        ),
        endings=endings,
    )


def count_lengths(rows: Iterable[Mapping[str, Any]]) -> Lengths:
    """Length against correctness of ``rows``, as the webapp's database counts it."""
    scored = [row for row in rows if not Outcome(row["outcome"]).is_error]
    counted = [row for row in scored if row["completion_tokens"] is not None]
    uncounted = len(scored) - len(counted)
    if not counted:
        return Lengths(counted=0, uncounted=uncounted)
    tokens: dict[bool, list[int]] = {True: [], False: []}
    of_problem: dict[str, dict[bool, list[int]]] = defaultdict(lambda: {True: [], False: []})
    for row in counted:
        right = Outcome(row["outcome"]) is Outcome.CORRECT
        tokens[right].append(row["completion_tokens"])
        of_problem[row["problem_id"]][right].append(row["completion_tokens"])
    logs = [
        log(fmean(kinds[True])) - log(fmean(kinds[False]))
        for kinds in of_problem.values()
        if sum(kinds[True]) and sum(kinds[False])
    ]
    return Lengths(
        counted=len(counted),
        uncounted=uncounted,
        median_right=median(tokens[True]) if tokens[True] else None,
        median_other=median(tokens[False]) if tokens[False] else None,
        bins=_bins(counted, min(map(min, filter(None, tokens.values())))),
        mixed_problems=len(logs),
        ratio=exp(fmean(logs)) if logs else None,
    )


def _bins(counted: Sequence[Mapping[str, Any]], shortest: int) -> list[LengthBin]:
    """Outcomes by length; bins that hold nothing are left out."""
    longest = max(row["completion_tokens"] for row in counted)
    edges = length_edges(shortest, longest)
    outcomes: dict[int, Counter[str]] = defaultdict(Counter)
    for row in counted:
        place = bisect.bisect_right(edges, row["completion_tokens"]) - 1
        outcomes[place][str(row["outcome"])] += 1
    return [
        LengthBin(
            first=edges[place],
            last=edges[place + 1] - 1 if place + 1 < len(edges) else longest,
            outcomes=dict(found),
        )
        for place, found in sorted(outcomes.items())
    ]


def alarms(
    endings: Endings,
    *,
    max_tokens: int,
    temperature: float,
    replayed: bool = False,
    context_tokens: int | None = None,
) -> list[Alarm]:
    """The sentences that a reader of the score must know, the gravest rate first; none: no alarm.

    ``max_tokens`` and ``temperature`` are the protocol's; ``replayed`` completions were made
    elsewhere, where the protocol had no say. ``context_tokens`` is the model's, where it is known.
    """
    found = []
    if (share := _share(endings.cut, endings)) >= NOTABLE_SHARE:
        text = _truncation(endings, max_tokens, replayed, context_tokens)
        grave = _share(endings.truncated, endings) >= GRAVE_SHARE
        found.append((share, Alarm(text, grave)))
    if (share := _share(endings.looped, endings)) >= NOTABLE_SHARE:
        alarm = Alarm(_loops(endings, temperature, replayed), share >= GRAVE_SHARE)
        found.append((share, alarm))
    return [alarm for _, alarm in sorted(found, key=lambda pair: -pair[0])]


def _share(count: int, endings: Endings) -> float:
    return count / endings.completions if endings.completions else 0.0


def percent(share: float) -> str:
    """0.1234 → "12 %", below ten per cent with one digit; the space does not break."""
    return f"{100 * share:.{0 if share >= 0.0995 else 1}f}\N{NO-BREAK SPACE}%"


def _truncation(
    endings: Endings, max_tokens: int, replayed: bool, context_tokens: int | None
) -> str:
    at = ""
    if endings.cut_at_most_tokens is not None:
        spread = endings.cut_at_least_tokens != endings.cut_at_most_tokens
        at = f" at {'up to ' if spread else ''}{endings.cut_at_most_tokens:,} tokens"
    text = f"{percent(_share(endings.cut, endings))} of completions were truncated{at}"
    if not endings.truncated:
        circles = " or ran in circles" if endings.looped else ""
        return f"{text}; each of them had given an answer by then{circles}."
    unanswered = percent(_share(endings.truncated, endings))
    text += f": pass@1 is a lower bound ({unanswered} had no answer yet)"
    if replayed:
        return f"{text}; draw them again with a larger token limit where they were made."
    if context_tokens is not None and context_tokens <= max_tokens:
        return (
            f"{text}; the model's context of {context_tokens:,} tokens ends before the protocol's "
            f"max_tokens of {max_tokens:,}: raise the context (rope override)."
        )
    return f"{text}; raise max_tokens."


def _loops(endings: Endings, temperature: float, replayed: bool) -> str:
    text = (
        f"{percent(_share(endings.looped, endings))} of completions ran in circles until they were "
        "stopped, without an answer; more tokens do not help these"
    )
    if not replayed and temperature < LOOPING_TEMPERATURE:
        return (
            f"{text}. At temperature {temperature:g} repetition is to be expected: sample at 0.5 "
            "to 0.7, as DeepSeek-R1's README advises."
        )
    return (
        f"{text}. Look at a few: an unfit chat template or too little training is the usual cause."
    )


def length_edges(shortest: int, longest: int) -> list[int]:
    """Lower edges of bins in tokens that hold ``shortest`` to ``longest``, both at least 0.

    The first edge is at most ``shortest``; a bin ends where the next begins, the last is open. By
    doubling where the lengths span more than 4 doublings, else even steps of 1, 2 or 5 × 10^k.
    """
    if longest >= max(shortest, 1) * 2**_OCTAVES:
        first = 1 << (shortest.bit_length() - 1) if shortest else 0
        edges = [first]
        while (following := max(2 * edges[-1], 1)) <= longest:
            edges.append(following)
        return edges
    step = _even_step((longest - shortest) / _LINEAR_BINS)
    return list(range(shortest // step * step, longest + 1, step))


def _even_step(least: float) -> int:
    """The smallest of 1, 2, 5, 10, 20, 50 … that is not below ``least``."""
    power = 1
    while True:
        for digit in (1, 2, 5):
            if digit * power >= least:
                return digit * power
        power *= 10

"""What goes wrong with completions besides wrong answers: cut off, running in circles, too long.

Pure functions over counts, so that a page can count in its database and a report in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

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
    text += f": scores are lower bounds ({unanswered} had no answer yet)"
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

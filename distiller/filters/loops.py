"""Drops responses that went round in circles."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from distiller.filters.base import Context, Filter, Reason, Trace, split
from evaluator.graders.extraction import is_looped

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])\s*|\n+")
_FORMULA = re.compile(r"\$[^$]*\$|\\[a-zA-Z]+")
_WORD = re.compile(r"[^\W\d_]{2,}")
_WIDE = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]")  # say about twice as much
GRAM = 16  # characters of the fingerprints by which periods are found
PERIODS = 8  # candidates that are tried
_FACTOR = 0x9E3779B97F4A7C15


class Loops(Filter):
    """``looped``: a stretch repeats itself right away; ``repeated``: sentences keep coming back.

    ``looped`` holds for any unit, from one character to many paragraphs, anywhere in the response,
    not only at its end (PROTOCOLS §2). Without a word in it (a matrix of zeros, a long decimal) a
    stretch must be ``min_wordless_characters`` long.
    """

    name: ClassVar[str] = "loops"
    min_copies: Annotated[int, Field(ge=2, description="of a unit, one after another")] = 4
    min_copies_of_long: Annotated[int, Field(ge=2, description="units of 200 characters")] = 3
    min_characters: Annotated[int, Field(ge=1, description="of all copies together")] = 200
    min_wordless_characters: Annotated[int, Field(ge=1)] = 1000
    max_repeats: Annotated[int, Field(ge=1, description="of one sentence")] = 8
    max_repeated_share: Annotated[
        float, Field(gt=0, le=1, description="characters in sentences that stood there before")
    ] = 0.5
    min_sentence_characters: Annotated[int, Field(ge=1, description="shorter ones may recur")] = 20

    def reasons(self, traces: Sequence[Trace], context: Context) -> list[Reason]:
        """See :meth:`Filter.reasons`."""
        return [self._reason(trace, split(trace, context.thinking)[0]) for trace in traces]

    def _reason(self, trace: Trace, thoughts: str) -> Reason:
        text = trace.text
        if trace.completion.reasoning:
            text = f"{trace.completion.reasoning}\n{text}"
        if is_looped(text) or is_looped(thoughts):
            return "looped"
        plain = " ".join(text.split())
        if any(self._is_loop(plain[a:b], period) for a, b, period in periodic_stretches(plain)):
            return "looped"
        return "repeated" if self._keeps_repeating(text) else None

    def _is_loop(self, stretch: str, period: int) -> bool:
        copies, length = len(stretch) / period, _width(stretch)
        unit = stretch[: 2 * period]  # twice, so that a word on the seam is whole
        if not _WORD.search(_FORMULA.sub(" ", unit)):
            return copies >= self.min_copies and length >= self.min_wordless_characters
        if copies >= self.min_copies and length >= self.min_characters:
            return True
        if copies >= 2.5 * self.min_copies and length >= self.min_characters / 2:
            return True
        return period >= self.min_characters and copies >= self.min_copies_of_long

    def _keeps_repeating(self, text: str) -> bool:
        sentences = [" ".join(part.split()) for part in _SENTENCE_END.split(text)]
        long = [part for part in sentences if _width(part) >= self.min_sentence_characters]
        counts = Counter(long)
        if max(counts.values(), default=0) > self.max_repeats:
            return True
        total = sum(map(len, long))
        again = total - sum(map(len, counts))
        return again >= self.min_characters and again > self.max_repeated_share * total


def periodic_stretches(text: str) -> Iterator[tuple[int, int, int]]:
    """(start, end, period) of the longest stretch of each likely period; takes n log n time.

    A text with period p repeats its fingerprints at distance p, so the distances from each
    fingerprint to its last occurrence name the candidates; each is then tried on the text itself.
    """
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    if len(codes) < 2 * GRAM:
        return
    prints = _fingerprints(codes)
    order = np.argsort(prints, kind="stable")
    same = prints[order[1:]] == prints[order[:-1]]
    distances, counts = np.unique(order[1:][same] - order[:-1][same], return_counts=True)
    for index in np.argsort(-counts, kind="stable")[:PERIODS]:
        period = int(distances[index])
        start, length = _longest_run(codes[period:] == codes[:-period])
        yield start, start + length + period, period


def _fingerprints(codes: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """A hash of every ``GRAM`` characters in a row, (n - GRAM + 1,)."""
    prints = (codes.astype(np.uint64) + np.uint64(1)) * np.uint64(_FACTOR)
    width = 1
    while width < GRAM:
        factor = np.uint64(pow(_FACTOR, width, 1 << 64))
        prints = prints[:-width] * factor + prints[width:]
        width *= 2
    return prints


def _longest_run(flags: NDArray[np.bool_]) -> tuple[int, int]:
    """(start, length) of the longest stretch of true flags."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flags.view(np.int8), [0]))))
    starts, ends = edges[::2], edges[1::2]
    if not len(starts):
        return 0, 0
    longest = int(np.argmax(ends - starts))
    return int(starts[longest]), int(ends[longest] - starts[longest])


def _width(text: str) -> int:
    return len(text) + len(_WIDE.findall(text))

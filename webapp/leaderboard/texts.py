"""A sample's text in parts: a response may be endless, a page may not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from evaluator.graders.extraction import boxes
from webapp.runs.texts import TextView

PART_CHARACTERS = 20_000
RAW_CHARACTERS = 4_000_000  # of a raw text; a response of 32,768 tokens has some 130,000
Which = Literal["thinking", "answer"]


@dataclass(frozen=True, slots=True)
class Part:
    """Some of a text, and where the rest begins."""

    which: Which
    text: str
    start: int
    total: int

    @property
    def end(self) -> int:
        """Where the next part begins."""
        return self.start + len(self.text)

    @property
    def has_more(self) -> bool:
        """Whether there is a next part."""
        return self.end < self.total


@dataclass(frozen=True, slots=True)
class SampleText:
    """What the page shows of a response at first; both parts are a model's words."""

    thinking: Part
    answer: Part
    unfinished: bool
    final: str  # what the last box holds; empty where there is none

    @classmethod
    def of(cls, row: Mapping[str, Any], thinking: Mapping[str, Any]) -> SampleText:
        """Split a segment's row by the protocol's rule for thinking."""
        view = TextView.of(row, thinking)
        found = boxes(view.answer[-PART_CHARACTERS:])
        return cls(
            thinking=part_of(view, "thinking", 0),
            answer=part_of(view, "answer", 0),
            unfinished=view.unfinished,
            final=found[-1][:2000] if found else "",
        )


def part_of(view: TextView, which: Which, start: int) -> Part:
    """The part that begins at ``start``; a surrogate pair is never cut, as Python has none."""
    whole = view.thinking if which == "thinking" else view.answer
    return Part(which, whole[start : start + PART_CHARACTERS], start, len(whole))

"""Drops responses that went round in circles."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from distiller.filters.base import Context, Filter, Reason, Trace, split_thoughts
from evaluator.graders.extraction import is_looped

_SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s+|\n+")


class Loops(Filter):
    """``looped``: the end repeats itself (PROTOCOLS §2); ``repeated``: one sentence recurs often.

    Both look at the whole response and at the thoughts alone, which may loop and then recover.
    """

    name: ClassVar[str] = "loops"
    max_repeats: Annotated[int, Field(ge=1, description="of one sentence")] = 8
    min_sentence_characters: Annotated[int, Field(ge=1, description="shorter ones may recur")] = 20

    def reasons(self, traces: Sequence[Trace], context: Context) -> list[Reason]:
        """See :meth:`Filter.reasons`."""
        return [
            self._reason(trace.text, split_thoughts(trace.text, context.thinking)[0])
            for trace in traces
        ]

    def _reason(self, text: str, thoughts: str) -> Reason:
        if is_looped(text) or is_looped(thoughts):
            return "looped"
        sentences = Counter(
            sentence
            for part in _SENTENCE_END.split(text)
            if len(sentence := " ".join(part.split())) >= self.min_sentence_characters
        )
        return "repeated" if max(sentences.values(), default=0) > self.max_repeats else None

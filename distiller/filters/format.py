"""Drops responses whose shape a student must not learn (PROTOCOLS §5: "bad format")."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from distiller.filters.base import Context, Filter, Reason, Trace, split_thoughts
from evaluator.graders.extraction import boxes
from evaluator.protocol import Thinking

_PARAGRAPH_END = re.compile(r"\n\s*\n")


class Format(Filter):
    """One opening tag at the start, one closing tag, thoughts between, an answer behind.

    Reasons: ``tags``, ``empty_thoughts``, ``no_answer_part``, ``no_box``, ``long_paragraph``,
    ``code_block``.
    """

    name: ClassVar[str] = "format"
    min_thought_characters: Annotated[int, Field(ge=0)] = 1
    require_box: bool = True  # the answer part holds a balanced \boxed{…}
    max_paragraph_characters: Annotated[
        int | None, Field(ge=1, description="longest paragraph of the thoughts; None: any")
    ] = None
    allow_code_blocks: Annotated[bool, Field(description="``` in the thoughts")] = True

    def reasons(self, traces: Sequence[Trace], context: Context) -> list[Reason]:
        """See :meth:`Filter.reasons`."""
        return [self._reason(trace.text, context.thinking) for trace in traces]

    def _reason(self, text: str, thinking: Thinking) -> Reason:
        thoughts, answer = split_thoughts(text, thinking)
        found: list[tuple[bool, str]] = []
        if thinking.kind == "tags":
            found = [
                (not _well_tagged(text, thinking), "tags"),
                (len(thoughts.strip()) < self.min_thought_characters, "empty_thoughts"),
            ]
        longest = max(map(len, _PARAGRAPH_END.split(thoughts)))
        limit = self.max_paragraph_characters
        found += [
            (not answer.strip(), "no_answer_part"),
            (self.require_box and not boxes(answer), "no_box"),
            (limit is not None and longest > limit, "long_paragraph"),
            (not self.allow_code_blocks and "```" in thoughts, "code_block"),
        ]
        return next((reason for bad, reason in found if bad), None)


def _well_tagged(text: str, thinking: Thinking) -> bool:
    return (
        text.lstrip().startswith(thinking.open)
        and text.count(thinking.open) == 1
        and text.count(thinking.close) == 1
    )

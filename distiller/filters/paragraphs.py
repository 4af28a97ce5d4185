"""Drops thoughts that run on without a break (PROTOCOLS §5: "overlong paragraphs")."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from distiller.filters.base import Context, Filter, Reason, Trace, split

_PARAGRAPH_END = re.compile(r"\n\s*\n")


class Paragraphs(Filter):
    """``long_paragraph``: a paragraph of the thoughts is longer than the limit."""

    name: ClassVar[str] = "paragraphs"
    max_characters: Annotated[int, Field(ge=1, description="between two blank lines")] = 4000

    def reasons(self, traces: Sequence[Trace], context: Context) -> list[Reason]:
        """See :meth:`Filter.reasons`."""
        return [
            "long_paragraph" if self._longest(trace, context) > self.max_characters else None
            for trace in traces
        ]

    def _longest(self, trace: Trace, context: Context) -> int:
        thoughts, _ = split(trace, context.thinking)
        return max(len(paragraph.strip()) for paragraph in _PARAGRAPH_END.split(thoughts))

"""Drops responses that the token limit cut off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from distiller.filters.base import Context, Filter, Reason, Trace
from evaluator.records import FinishReason


class Truncated(Filter):
    """``truncated``: the response did not end by itself."""

    name: ClassVar[str] = "truncated"

    def reasons(self, traces: Sequence[Trace], context: Context) -> list[Reason]:
        """See :meth:`Filter.reasons`."""
        return [
            "truncated" if trace.completion.finish_reason == FinishReason.LENGTH else None
            for trace in traces
        ]

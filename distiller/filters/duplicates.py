"""Drops what the corpus already holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from distiller.filters.base import Context, Filter, Reason, Trace


class Duplicates(Filter):
    """``duplicate``: same question and same response but for white space; the first one stays.

    ``surplus``: the problem already has ``max_per_problem`` kept responses.
    """

    name: ClassVar[str] = "duplicates"
    max_per_problem: Annotated[int | None, Field(ge=1, description="None: any number")] = None

    def reasons(self, traces: Sequence[Trace], context: Context) -> list[Reason]:
        """See :meth:`Filter.reasons`."""
        seen: set[tuple[str, str]] = set()
        kept: Counter[str] = Counter()
        reasons: list[Reason] = []
        for trace in traces:
            question = " ".join(trace.problem.problem.split())
            key = (question, " ".join(trace.text.split()))
            if key in seen:
                reasons.append("duplicate")
            elif self.max_per_problem is not None and kept[question] >= self.max_per_problem:
                reasons.append("surplus")
            else:
                seen.add(key)
                kept[question] += 1
                reasons.append(None)
        return reasons

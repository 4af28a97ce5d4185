"""Chooses how many responses of a prompt are taught, and which."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from distiller.filters.base import Context, Filter, Reason, Trace
from evaluator.records import content_hash


class Select(Filter):
    """``surplus``: the prompt has better or enough other responses among those that are left.

    ``shortest`` is Kimi k1.5's choice for long2short; ``random`` depends on the seed, the prompt
    and the samples' numbers alone; ``first`` keeps the lowest sample numbers.
    """

    name: ClassVar[str] = "select"
    scope: ClassVar = "question"
    choose: Annotated[
        Literal["shortest", "random", "first"], Field(description="which ones stay")
    ] = "shortest"
    per_prompt: Annotated[int | None, Field(ge=1, description="responses; None: all")] = 1
    seed: Annotated[int, Field(description="of the random choice")] = 0

    def reasons(self, traces: Sequence[Trace], context: Context) -> list[Reason]:
        """See :meth:`Filter.reasons`."""
        by_problem: defaultdict[str, list[int]] = defaultdict(list)
        for position, trace in enumerate(traces):
            by_problem[trace.problem.id].append(position)
        kept: set[int] = set()
        for positions in by_problem.values():
            kept.update(sorted(positions, key=lambda at: self._rank(traces[at]))[: self.per_prompt])
        return [None if position in kept else "surplus" for position in range(len(traces))]

    def _rank(self, trace: Trace) -> tuple[int | str, int]:
        """What a trace is sorted by; the sample's number breaks ties."""
        sample = trace.completion.sample
        if self.choose == "shortest":
            return len(trace.text) + len(trace.completion.reasoning or ""), sample
        if self.choose == "random":
            return content_hash([self.seed, trace.problem.id, sample]), sample
        return 0, sample

"""Drops what the corpus already holds, or nearly so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from distiller.filters.base import Context, Filter, Reason, Trace
from distiller.similarity import near_pairs


class Duplicates(Filter):
    """``duplicate``: same question and same response but for white space; the first one stays.

    ``near_duplicate``: nearly the same response to nearly the same question; its word 3-grams have
    a Jaccard index of at least ``threshold`` with an earlier one that stayed.
    ``near_duplicate_prompt``: an earlier problem asks nearly the same, and ``near_prompts`` is off.
    """

    name: ClassVar[str] = "duplicates"
    scope: ClassVar = "question"
    near: Annotated[bool, Field(description="drop near copies too")] = True
    threshold: Annotated[float, Field(gt=0, le=1, description="Jaccard index of 3-grams")] = 0.8
    near_prompts: Annotated[
        bool, Field(description="keep traces of a problem that is nearly an earlier one's copy")
    ] = True

    def reasons(self, traces: Sequence[Trace], context: Context) -> list[Reason]:
        """See :meth:`Filter.reasons`."""
        reasons: list[Reason] = [None] * len(traces)
        if not self.near_prompts and traces:
            first = (context.drawn or traces)[0].problem
            for at, trace in enumerate(traces):
                if _plain(trace.problem.problem) != _plain(first.problem):
                    reasons[at] = "near_duplicate_prompt"
        seen: set[tuple[str, str]] = set()
        for at, trace in enumerate(traces):
            key = (_plain(trace.problem.problem), _plain(_response(trace)))
            if reasons[at] is None and key in seen:
                reasons[at] = "duplicate"
            seen.add(key)
        left = [at for at, reason in enumerate(reasons) if reason is None]
        if self.near and len(left) > 1:
            texts = [_response(traces[at]) for at in left]
            dropped: set[int] = set()
            for earlier, later in near_pairs(texts, self.threshold):
                if earlier not in dropped and self._same_question(
                    traces[left[earlier]], traces[left[later]]
                ):
                    dropped.add(later)
            for at in dropped:
                reasons[left[at]] = "near_duplicate"
        return reasons

    def _same_question(self, first: Trace, second: Trace) -> bool:
        """Whether two traces answer the same question, or nearly: the caller may mix them."""
        one, other = first.problem, second.problem
        if one.id == other.id or _plain(one.problem) == _plain(other.problem):
            return True
        pair = [one.problem, other.problem]
        return one.answer == other.answer and any(
            near_pairs(pair, self.threshold, same_numbers=True)
        )


def _response(trace: Trace) -> str:
    return f"{trace.completion.reasoning or ''}\n{trace.text}"


def _plain(text: str) -> str:
    return " ".join(text.split())

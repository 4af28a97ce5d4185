"""Drops the traces of prompts that are too easy or too hard for the teacher."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from distiller.filters.base import Context, Filter, Reason, Trace
from evaluator.protocol import GradingPolicy
from evaluator.records import Outcome


class PassRate(Filter):
    """``too_hard`` and ``too_easy``: the share of right answers among all drawn is out of bounds.

    All samples of a prompt count, those that other filters dropped too, but for engine errors.
    Kimi k1.5 tells difficulty by ten samples; a prompt with fewer than ``min_samples`` is kept.
    """

    name: ClassVar[str] = "pass_rate"
    scope: ClassVar = "question"
    min_rate: Annotated[float, Field(ge=0, le=1, description="a smaller share is dropped")] = 0.0
    max_rate: Annotated[float, Field(ge=0, le=1, description="a larger share is dropped")] = 1.0
    min_samples: Annotated[int, Field(ge=1, description="fewer say nothing of difficulty")] = 2
    grader: str = "math"
    policy: GradingPolicy = GradingPolicy()

    @model_validator(mode="after")
    def _in_order(self) -> PassRate:
        if self.max_rate < self.min_rate:
            raise ValueError("max_rate must not be smaller than min_rate")
        return self

    def reasons(self, traces: Sequence[Trace], context: Context) -> list[Reason]:
        """See :meth:`Filter.reasons`."""
        drawn = [t for t in context.drawn or traces if t.completion.error is None]
        verdicts = context.verdicts(drawn, grader=self.grader, policy=self.policy)
        correct: defaultdict[str, list[bool]] = defaultdict(list)
        for trace, verdict in zip(drawn, verdicts, strict=True):
            if not verdict.outcome.is_error:
                correct[trace.problem.id].append(verdict.outcome == Outcome.CORRECT)
        return [self._reason(correct[trace.problem.id]) for trace in traces]

    def _reason(self, correct: Sequence[bool]) -> Reason:
        if len(correct) < self.min_samples:
            return None
        rate = sum(correct) / len(correct)
        if rate < self.min_rate:
            return "too_hard"
        return "too_easy" if rate > self.max_rate else None

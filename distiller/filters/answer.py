"""Drops responses whose final answer is not the reference answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from distiller.filters.base import Context, Filter, Reason, Trace
from evaluator.graders.pool import GradeRequest, GraderPool
from evaluator.protocol import GradingPolicy
from evaluator.records import Outcome


class Answer(Filter):
    """Keeps what the grader calls correct.

    Reasons are the other outcomes: ``wrong``, ``no_answer``, ``looped``, ``truncated``,
    ``grader_error`` (nothing is known of the answer, so the trace is not taught).
    """

    name: ClassVar[str] = "answer"
    grader: Literal["math", "integer"] = "math"
    policy: GradingPolicy = GradingPolicy()

    def reasons(self, traces: Sequence[Trace], context: Context) -> list[Reason]:
        """See :meth:`Filter.reasons`."""
        requests = (
            GradeRequest(
                kind=self.grader,
                gold=trace.problem.answer,
                thinking=context.thinking,
                policy=self.policy,
                completion=trace.completion,
            )
            for trace in traces
        )
        with GraderPool(context.jobs) as pool:
            return [
                None if verdict.outcome == Outcome.CORRECT else str(verdict.outcome)
                for verdict in pool.grade(requests)
            ]

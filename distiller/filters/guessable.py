"""Drops problems that are answered right without thinking (Kimi k1.5; PROTOCOLS §5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from distiller.filters.base import Context, Filter, Needs, Reason, Trace
from evaluator.graders.pool import GradeRequest, GraderPool
from evaluator.protocol import GradingPolicy, Thinking
from evaluator.records import Outcome


class Guessable(Filter):
    """``guessable``: right in at least ``min_right`` of the first ``tries`` guesses.

    Guesses are completions that some model drew without thinking; they are given beside the traces.
    A problem without guesses is kept: nothing is known of it.
    """

    name: ClassVar[str] = "guessable"
    scope: ClassVar = "question"
    tries: Annotated[int, Field(ge=1, description="guesses that count, by sample")] = 8
    min_right: Annotated[int, Field(ge=1, description="right guesses that drop a problem")] = 1
    grader: str = "math"
    policy: GradingPolicy = GradingPolicy()

    @property
    def needs(self) -> Needs:
        """See :meth:`Filter.needs`."""
        return "guesses"

    def reasons(self, traces: Sequence[Trace], context: Context) -> list[Reason]:
        """See :meth:`Filter.reasons`."""
        answers = {trace.problem.id: trace.problem.answer for trace in traces}
        guessed = {
            problem_id: self._right(problem_id, answer, context) >= self.min_right
            for problem_id, answer in answers.items()
        }
        return ["guessable" if guessed[trace.problem.id] else None for trace in traces]

    def _right(self, problem_id: str, answer: str, context: Context) -> int:
        guesses = sorted(context.guesses.get(problem_id, ()), key=lambda guess: guess.sample)
        requests = [
            GradeRequest(
                kind=self.grader,
                gold=answer,
                thinking=Thinking(kind="none"),
                policy=self.policy,
                completion=guess,
            )
            for guess in guesses[: self.tries]
        ]
        if not requests:
            return 0
        if context.pool is not None:
            verdicts = list(context.pool.grade(requests))
        else:
            with GraderPool(context.jobs) as pool:
                verdicts = list(pool.grade(requests))
        return sum(verdict.outcome == Outcome.CORRECT for verdict in verdicts)

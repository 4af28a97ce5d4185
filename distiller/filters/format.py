"""Drops responses whose shape a student must not learn (PROTOCOLS §5: "bad format")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from distiller.filters.base import Context, Filter, Reason, Trace, split
from evaluator import graders
from evaluator.graders.extraction import boxes, final_answers
from evaluator.protocol import GradingPolicy, Thinking


class Format(Filter):
    """Thoughts opened at the start and closed once, not empty, and one final answer behind them.

    Reasons, the first that holds: ``not_opened``, ``text_before_thoughts``, ``not_closed``,
    ``opened_twice``, ``closed_twice``, ``empty_thoughts``, ``no_answer_part``, ``no_box``,
    ``no_final_answer``, ``several_answers``.
    """

    name: ClassVar[str] = "format"
    min_thought_characters: Annotated[int, Field(ge=0, description="white space aside")] = 1
    require_box: Annotated[bool, Field(description="the answer stands in \\boxed{…}")] = False
    require_answer: Annotated[bool, Field(description="off for prompts without a short answer")] = (
        True
    )
    one_answer: Annotated[bool, Field(description="refuse two different final answers")] = True

    def reasons(self, traces: Sequence[Trace], context: Context) -> list[Reason]:
        """See :meth:`Filter.reasons`."""
        return [self._reason(trace, context.thinking) for trace in traces]

    def _reason(self, trace: Trace, thinking: Thinking) -> Reason:
        if thinking.kind == "tags" and (fault := _tag_fault(trace.text, thinking)):
            return fault
        thoughts, answer = split(trace, thinking)
        if thinking.kind != "none" and len(thoughts.strip()) < self.min_thought_characters:
            return "empty_thoughts"
        if not answer.strip():
            return "no_answer_part"
        if self.require_box and not boxes(answer):
            return "no_box"
        found = final_answers(answer)
        if self.require_answer and not found:
            return "no_final_answer"
        return "several_answers" if self.one_answer and _differ(found) else None


def _differ(answers: Sequence[str]) -> bool:
    """Whether two of the answers are not plainly the same one."""
    grader, policy = graders.get("math"), GradingPolicy()
    return any(
        other != answers[0] and grader.equal_fast(answers[0], other, policy) is not True
        for other in answers[1:]
    )


def _tag_fault(text: str, thinking: Thinking) -> Reason:
    before, opened, _ = text.partition(thinking.open)
    closings = text.count(thinking.close)
    if not opened:
        return "not_opened"
    if before.strip():
        return "text_before_thoughts" if thinking.close not in before else "closed_twice"
    if not closings:
        return "not_closed"
    if closings > 1:
        return "closed_twice"
    return "opened_twice" if text.count(thinking.open) > 1 else None

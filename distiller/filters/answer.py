"""Drops responses whose final answer is not the reference answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from distiller.filters.base import Context, Filter, Needs, Reason, Trace
from evaluator import graders
from evaluator.protocol import GradingPolicy
from evaluator.records import Outcome, Verdict

_FORMULA = re.compile(
    r"\$\$.*?\$\$|\$[^$]*\$|\\\(.*?\\\)|\\\[.*?\\\]|\\(?!text|mbox)[a-zA-Z]+", re.DOTALL
)
_WORD = re.compile(r"[^\W\d_]{2,}")
_IDEOGRAPH = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]")
PROSE_WORDS = 5  # fewest of a reference answer that no rule compares
PROSE_IDEOGRAPHS = 10


class Answer(Filter):
    """Keeps what the grader calls correct.

    Reasons are the other outcomes: ``wrong``, ``no_answer``, ``looped``, ``truncated``,
    ``grader_error``. Where the rule cannot check an answer (no reference, a reference in prose, a
    grader that failed), ``unchecked`` says what happens: ``drop`` it as ``cannot_check``, ``keep``
    it, or ask the ``judge``'s file of verdicts: then ``judged_wrong``, ``judge_unsure`` or
    ``not_judged``. A judge is never asked about what the rule has decided.
    """

    name: ClassVar[str] = "answer"
    grader: str = "math"
    policy: GradingPolicy = GradingPolicy()
    unchecked: Annotated[
        Literal["drop", "keep", "judge"], Field(description="where the rule cannot check")
    ] = "drop"

    @field_validator("grader")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in graders.names() or graders.get(value).untrusted:
            known = ", ".join(name for name in graders.names() if not graders.get(name).untrusted)
            raise ValueError(f"must be one of {known}")
        return value

    @property
    def needs(self) -> Needs | None:
        """See :meth:`Filter.needs`."""
        return "verdicts" if self.unchecked == "judge" else None

    def reasons(self, traces: Sequence[Trace], context: Context) -> list[Reason]:
        """See :meth:`Filter.reasons`."""
        verdicts = context.verdicts(traces, grader=self.grader, policy=self.policy)
        return [
            self._reason(trace, verdict, context)
            for trace, verdict in zip(traces, verdicts, strict=True)
        ]

    def _reason(self, trace: Trace, verdict: Verdict, context: Context) -> Reason:
        if verdict.outcome == Outcome.CORRECT:
            return None
        if not cannot_check(verdict, trace.problem.answer, self.grader):
            return str(verdict.outcome)
        if self.unchecked == "keep":
            return None
        if self.unchecked == "drop":
            failed = verdict.outcome == Outcome.GRADER_ERROR
            return "grader_error" if failed else "cannot_check"
        judged = context.judged.get(trace.completion.key)
        reasons: dict[str | None, Reason] = {
            "correct": None, "wrong": "judged_wrong", "unsure": "judge_unsure", None: "not_judged",
        }  # fmt: skip
        return reasons[judged]


def cannot_check(verdict: Verdict, reference: str, grader: str) -> bool:
    """Whether the rule's verdict says nothing: it failed, or has nothing that it could compare."""
    if verdict.outcome == Outcome.GRADER_ERROR:
        return True
    if verdict.outcome not in (Outcome.WRONG, Outcome.NO_ANSWER):
        return False
    return not reference.strip() or (grader == "math" and is_prose(reference))


def is_prose(reference: str) -> bool:
    """Whether a reference answer is a sentence: only its reader can tell what says the same."""
    rest = _FORMULA.sub(" ", reference)
    return (
        len(_WORD.findall(rest)) >= PROSE_WORDS or len(_IDEOGRAPH.findall(rest)) >= PROSE_IDEOGRAPHS
    )

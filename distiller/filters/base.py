"""What a filter is: it keeps a trace or drops it with a reason code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from evaluator.protocol import Config, Thinking
from evaluator.records import Completion, FinishReason, Problem

Reason = str | None  # None keeps the trace


@dataclass(frozen=True, slots=True)
class Trace:
    """A teacher's completion together with the problem that it answers."""

    problem: Problem
    completion: Completion

    @property
    def text(self) -> str:
        """The whole response, a forced response start included."""
        return self.completion.text

    def to_json(self, reason: Reason = None) -> dict[str, Any]:
        """The row of kept.jsonl, or of dropped.jsonl with its reason."""
        row = {
            "problem_id": self.problem.id,
            "sample": self.completion.sample,
            "completion": self.completion.text,
            "finish_reason": str(self.completion.finish_reason),
            "problem": self.problem.problem,
            "answer": self.problem.answer,
        }
        return row if reason is None else {**row, "reason": reason}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Trace:
        """Build a trace from :meth:`to_json`'s form."""
        problem = Problem(id=row["problem_id"], problem=row["problem"], answer=row["answer"])
        completion = Completion(
            problem_id=row["problem_id"],
            sample=int(row["sample"]),
            text=row["completion"],
            finish_reason=FinishReason(row["finish_reason"]),
        )
        return cls(problem, completion)


@dataclass(frozen=True, slots=True)
class Context:
    """What a filter may need beside its own parameters."""

    thinking: Thinking
    jobs: int = 1  # grader processes


class Filter(Config):
    """Base of every filter. Its fields are its parameters; unknown ones are refused."""

    name: ClassVar[str]

    def reasons(self, traces: Sequence[Trace], context: Context) -> list[Reason]:
        """One entry per trace, in order: None to keep it, or the reason code it is dropped for."""
        raise NotImplementedError


def split_thoughts(text: str, thinking: Thinking) -> tuple[str, str]:
    """(thoughts, answer part) of a response; without tags all of it is the answer part.

    The answer part begins after the last closing tag (PROTOCOLS §3).
    """
    if thinking.kind != "tags":
        return "", text
    head, closed, tail = text.rpartition(thinking.close)
    if not closed:
        return (text.replace(thinking.open, "", 1), "") if thinking.open in text else ("", text)
    return head.lstrip().removeprefix(thinking.open), tail

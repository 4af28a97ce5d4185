"""What a filter is: it keeps a trace or drops it with a reason code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from evaluator.graders.pool import GradeRequest, GraderPool
from evaluator.protocol import Config, GradingPolicy, Thinking
from evaluator.records import Completion, FinishReason, Problem, Verdict

Reason = str | None  # None keeps the trace
JudgeVerdict = Literal["correct", "wrong", "unsure"]
Key = tuple[str, int]  # problem id, sample


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
        if self.completion.reasoning is not None:
            row["reasoning"] = self.completion.reasoning
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
            reasoning=row.get("reasoning"),
        )
        return cls(problem, completion)


Needs = Literal["guesses", "verdicts"]  # no-thinking answers, or a judge's words


@dataclass(frozen=True, slots=True)
class Context:
    """What a filter may need beside its own parameters and the traces that are left.

    ``drawn`` are all traces of the questions at hand, dropped ones included: a pass rate counts
    those too. ``guesses`` and ``judged`` hold what was read from files: answers that were given
    without thinking, by problem id, and a judge's verdicts.
    """

    thinking: Thinking
    jobs: int = 1  # grader processes, where no pool is given
    pool: GraderPool | None = None
    drawn: Sequence[Trace] = ()
    guesses: Mapping[str, Sequence[Completion]] = field(default_factory=dict)
    judged: Mapping[Key, JudgeVerdict] = field(default_factory=dict)

    def verdicts(
        self, traces: Sequence[Trace], *, grader: str, policy: GradingPolicy
    ) -> list[Verdict]:
        """The rule's verdict on each trace, in order. The pool remembers equal answers."""
        requests = (
            GradeRequest(
                kind=grader,
                gold=trace.problem.answer,
                thinking=self.thinking,
                policy=policy,
                completion=trace.completion,
            )
            for trace in traces
        )
        with self._a_pool() as pool:
            return list(pool.grade(requests))

    @contextmanager
    def _a_pool(self) -> Iterator[GraderPool]:
        if self.pool is not None:
            yield self.pool
        else:
            with GraderPool(self.jobs) as pool:
                yield pool


class Filter(Config):
    """Base of every filter. Its fields are its parameters; unknown ones are refused.

    ``scope`` says what a verdict may depend on: one trace, or all that are left of a question.
    Filters of one trace come first, whatever the recipe's order.
    """

    name: ClassVar[str]
    scope: ClassVar[Literal["trace", "question"]] = "trace"

    @property
    def needs(self) -> Needs | None:
        """What has to be given beside the traces (``Context``) for it to say anything."""
        return None

    def reasons(self, traces: Sequence[Trace], context: Context) -> list[Reason]:
        """One entry per trace, in order: None to keep it, or the reason code it is dropped for."""
        raise NotImplementedError


def split(trace: Trace, thinking: Thinking) -> tuple[str, str]:
    """(thoughts, answer part) of a trace, wherever its thoughts stand."""
    if thinking.kind == "field":
        return trace.completion.reasoning or "", trace.text
    return split_thoughts(trace.text, thinking)


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

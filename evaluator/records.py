"""The vocabulary: frozen records that every room of the house passes on.

Nothing here imports anything heavy; the webapp uses these too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


def canonical_json(value: Any) -> str:
    """Return ``value`` as canonical JSON: sorted keys, no spaces, UTF-8 kept as it is."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def content_hash(value: Any) -> str:
    """Return the SHA-256 (64 hex digits) of ``value``'s canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


class Outcome(StrEnum):
    """What became of a completion: exactly one, the first that holds (PROTOCOLS §2)."""

    ENGINE_ERROR = "engine_error"
    GRADER_ERROR = "grader_error"
    CORRECT = "correct"
    WRONG = "wrong"
    LOOPED = "looped"
    TRUNCATED = "truncated"
    NO_ANSWER = "no_answer"

    @property
    def is_error(self) -> bool:
        """Errors are retried and never counted as wrong."""
        return self in (Outcome.ENGINE_ERROR, Outcome.GRADER_ERROR)


class FinishReason(StrEnum):
    """Why the engine stopped writing."""

    STOP = "stop"
    LENGTH = "length"
    ERROR = "error"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Problem:
    """A question with a reference answer; ``id`` is stable within its set."""

    id: str
    problem: str
    answer: str
    subject: str | None = None
    level: str | None = None
    options: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def content_hash(self) -> str:
        """SHA-256 over what a grade depends on: text, answer and options (not the id)."""
        return content_hash([self.problem, self.answer, list(self.options)])

    def to_json(self) -> dict[str, Any]:
        """Return the row as plain JSON values."""
        row = asdict(self)
        row["options"] = list(self.options)
        row["extra"] = dict(self.extra)
        return row

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Problem:
        """Build a problem from :meth:`to_json`'s form."""
        return cls(
            id=str(row["id"]),
            problem=row["problem"],
            answer=row["answer"],
            subject=row.get("subject"),
            level=row.get("level"),
            options=tuple(row.get("options") or ()),
            extra=dict(row.get("extra") or {}),
        )


def problems_hash(problems: list[Problem]) -> str:
    """Content hash of a set of problems: ids and contents, in order of id."""
    return content_hash(sorted([p.id, p.content_hash] for p in problems))


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled response. ``text`` excludes the prompt but includes a forced response start."""

    problem_id: str
    sample: int
    text: str
    finish_reason: FinishReason = FinishReason.UNKNOWN
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    seed: int | None = None
    reasoning: str | None = None  # thinking returned in a separate field by some endpoints
    options: tuple[int, ...] = ()  # multiple choice: the order in which the options were shown
    error: str | None = None

    @property
    def key(self) -> tuple[str, int]:
        """(problem id, sample): unique within an evaluation."""
        return (self.problem_id, self.sample)

    def to_json(self) -> dict[str, Any]:
        """Return the row as plain JSON values."""
        # By hand: asdict copies deeply, which costs more than encoding a short response does.
        return {
            "problem_id": self.problem_id,
            "sample": self.sample,
            "text": self.text,
            "finish_reason": str(self.finish_reason),
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "seed": self.seed,
            "reasoning": self.reasoning,
            "options": list(self.options),
            "error": self.error,
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Completion:
        """Build a completion from :meth:`to_json`'s form."""
        return cls(
            problem_id=str(row["problem_id"]),
            sample=int(row["sample"]),
            text=row["text"],
            finish_reason=FinishReason(row.get("finish_reason") or "unknown"),
            prompt_tokens=row.get("prompt_tokens"),
            completion_tokens=row.get("completion_tokens"),
            seed=row.get("seed"),
            reasoning=row.get("reasoning"),
            options=tuple(row.get("options") or ()),
            error=row.get("error"),
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What grading says of one completion."""

    outcome: Outcome
    answer: str | None = None  # the extracted answer, None where none was found
    reason: str = ""  # one short clause: why graded so
    cpu_seconds: float = 0.0
    judged: Mapping[str, Any] | None = None  # of a program: what the judge saw (graders/code.py)

    def to_json(self) -> dict[str, Any]:
        """Return the row as plain JSON values."""
        row = asdict(self)
        row["outcome"] = str(self.outcome)
        return row

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Verdict:
        """Build a verdict from :meth:`to_json`'s form."""
        return cls(
            outcome=Outcome(row["outcome"]),
            answer=row.get("answer"),
            reason=row.get("reason") or "",
            cpu_seconds=float(row.get("cpu_seconds") or 0.0),
            judged=row.get("judged"),
        )


def completion_seed(run_seed: int, problem_id: str, sample: int) -> int:
    """Derive a completion's seed, in [0, 2^31), from nothing but its key and the run's seed."""
    digest = hashlib.sha256(f"{run_seed}\x1f{problem_id}\x1f{sample}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % (1 << 31)

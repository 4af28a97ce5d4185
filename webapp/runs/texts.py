"""A completion's text as pages show it: the thinking apart from the answer part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from evaluator.graders.extraction import answer_part
from evaluator.protocol import Thinking


@dataclass(frozen=True, slots=True)
class TextView:
    """Raw text in two parts. Both are a model's words: templates escape them."""

    thinking: str
    answer: str
    unfinished: bool = False  # the thinking was never closed, so there is no answer part

    @classmethod
    def of(cls, row: Mapping[str, Any], thinking: Mapping[str, Any]) -> Self:
        """Split a segment's row by the protocol's rule for thinking (PROTOCOLS §3)."""
        text = str(row["text"])
        rule = Thinking.model_validate(thinking)
        reasoning = row.get("reasoning")
        answer = answer_part(text, rule, reasoning)
        thoughts = str(reasoning or "")
        if rule.kind == "tags" and not thoughts:
            thoughts = text if answer is None else text[: len(text) - len(answer)]
            thoughts = thoughts.strip().removeprefix(rule.open).removesuffix(rule.close)
        return cls(thoughts.strip(), (answer or "").strip(), unfinished=answer is None)


@dataclass(frozen=True, slots=True)
class ExampleView:
    """A kept or dropped trace of a corpus."""

    problem_id: str
    sample: int
    problem: str
    answer: str
    text: TextView
    reason: str  # why it was dropped; empty for a kept one

    @classmethod
    def of(cls, row: Mapping[str, Any], thinking: Mapping[str, Any]) -> Self:
        """Read a row of ``kept.jsonl`` or ``dropped.jsonl`` (distiller.filters.base.Trace)."""
        return cls(
            problem_id=str(row["problem_id"]),
            sample=int(row["sample"]),
            problem=str(row["problem"]),
            answer=str(row["answer"]),
            text=TextView.of({"text": row["completion"]}, thinking),
            reason=_why(row),
        )


_GLIMPSE_CHARACTERS = 1500


@dataclass(frozen=True, slots=True)
class GlimpseView:
    """The beginning and the end of a completion that has just come."""

    problem_id: str
    sample: int
    beginning: str
    end: str  # empty where the beginning is all of it
    left_out: int  # characters between the two
    error: str

    @classmethod
    def of(cls, row: Mapping[str, Any], thinking: Mapping[str, Any]) -> Self:
        """Read a segment's row."""
        text = TextView.of(row, thinking)
        whole = "\n\n".join(part for part in (text.thinking, text.answer) if part)
        most = 2 * _GLIMPSE_CHARACTERS
        cut = len(whole) > most
        return cls(
            problem_id=str(row["problem_id"]),
            sample=int(row["sample"]),
            beginning=whole[:_GLIMPSE_CHARACTERS] if cut else whole,
            end=whole[-_GLIMPSE_CHARACTERS:] if cut else "",
            left_out=len(whole) - most if cut else 0,
            error=str(row.get("error") or ""),
        )


def _why(row: Mapping[str, Any]) -> str:
    """A dropped trace's step and reason code in words."""
    if "reason" not in row:
        return ""
    return f"{row['step']}: {row['reason']}".replace("_", " ")


@dataclass(frozen=True, slots=True)
class PreflightView:
    """What was checked before a run began: what to look at first, and what passed."""

    errors: list[Mapping[str, Any]]
    warnings: list[Mapping[str, Any]]
    others: list[Mapping[str, Any]]  # passed, or only to know
    example: list[Mapping[str, Any]]  # {"text", "supervised"}

    @classmethod
    def of(cls, report: Mapping[str, Any] | None) -> Self | None:
        """Read a preflight.json (distiller.preflight.Report)."""
        if report is None:
            return None
        by_level: dict[str, list[Mapping[str, Any]]] = {"error": [], "warning": []}
        others: list[Mapping[str, Any]] = []
        for check in report["checks"]:
            by_level.get(check["level"], others).append(check)
        return cls(by_level["error"], by_level["warning"], others, report["example"])

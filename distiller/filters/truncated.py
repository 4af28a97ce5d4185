"""Drops responses that were cut off before their end."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from distiller.filters.base import Context, Filter, Reason, Trace
from evaluator.protocol import Thinking
from evaluator.records import FinishReason

# How no finished response ends: on a word or sign that something has to follow.
_HANGING = re.compile(
    r"(?:[,;:({\[+/=<&\\-]|\s[*>]|\\[a-zA-Z]+\{[^{}]*"
    r"|\b(?:the|a|an|of|to|and|or|is|are|was|by|with|for|in|so|that|because|since|then|we|if|as))"
    r"\s*\Z"
)
# Marks of the end that some models write out: <|end_of_solution|>, </answer>, </s>.
_END_MARKS = re.compile(r"(?:<\|[^|<>]*\|>|</\w+>|\s)+\Z")
_DISPLAY = re.compile(r"\$\$|(?<!\\)\\\[|(?<!\\)\\\]")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")


class Truncated(Filter):
    """``truncated``: the token limit, or whoever wrote the file, cut the response off.

    The engine's finish reason decides. Where none is known, the text does: thoughts that were never
    closed, nothing behind them, an open box, formula or code block, or an end that hangs in the
    air ("so the").
    """

    name: ClassVar[str] = "truncated"

    def reasons(self, traces: Sequence[Trace], context: Context) -> list[Reason]:
        """See :meth:`Filter.reasons`."""
        return ["truncated" if _is_cut_off(trace, context.thinking) else None for trace in traces]


def _is_cut_off(trace: Trace, thinking: Thinking) -> bool:
    reason = trace.completion.finish_reason
    if reason != FinishReason.UNKNOWN:
        return reason == FinishReason.LENGTH
    text = trace.text
    if thinking.kind == "tags" and thinking.open in text:
        opened, closed = text.rfind(thinking.open), text.rfind(thinking.close)
        if closed < opened:
            return True
        text = text[closed + len(thinking.close) :]
        if not text.strip():
            return True
    return looks_unfinished(text)


def looks_unfinished(answer: str) -> bool:
    """Whether an answer part stops in the middle of something."""
    if answer.count("```") % 2 or any(
        _depth_after(answer, box.end()) > 0 for box in _BOX.finditer(answer)
    ):
        return True
    marks = _DISPLAY.findall(answer)
    if marks.count("$$") % 2 or marks.count("\\[") > marks.count("\\]"):
        return True
    return bool(_HANGING.search(_END_MARKS.sub("", answer[-300:])))


def _depth_after(text: str, start: int) -> int:
    """Braces still open at the end, of one that was opened right before ``start``."""
    depth = 1
    for position in range(start, len(text)):
        if text[position] in "{}" and text[position - 1] != "\\":
            depth += 1 if text[position] == "{" else -1
            if depth == 0:
                return 0
    return depth

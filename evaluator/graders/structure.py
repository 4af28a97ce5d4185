"""Sequences in answers: tuples, intervals, sets, lists and unions, split at their own commas."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

MAX_DEPTH = 50

_TOKEN = re.compile(
    r"(?P<open>\\\{|\\begin\{\w+\*?\}|[{(\[])|(?P<close>\\\}|\\end\{\w+\*?\}|[})\]])"
    r"|(?P<equals>=)|(?P<cup>\\cup(?![a-zA-Z]))|(?P<comma>[,;](?:\s*\\?(?:and|or)\b)?|(?<=\s)(?:and|or)(?=\s))"
    r"|\\[a-zA-Z]+|\\."
)
_MATRIX = re.compile(
    r"\\begin\{(?P<kind>[pbB]?matrix|array|smallmatrix)\}(?:\{[lcr|]*\})?"
    r"(?P<body>(?:(?!\\begin).)*)\\end\{(?P=kind)\}"
)
_PLUS_MINUS = re.compile(r"\\pm(?![a-zA-Z])\s*")


@dataclass(frozen=True, slots=True)
class Sequence:
    """Members between brackets.

    ``kind`` is ``ordered`` (a tuple or an interval: the brackets matter), ``set``, ``list`` (no
    brackets; order does not matter), ``union`` or ``matrix`` (``brackets`` holds its shape).
    """

    kind: str
    brackets: str
    members: tuple[str, ...]

    @property
    def is_unordered(self) -> bool:
        """A set, or a list without brackets."""
        return self.kind in ("set", "list")


def parse(text: str, depth: int = 0) -> Sequence | str:  # noqa: PLR0911 - a list of cases
    """Split a cleaned answer into a sequence; what is none comes back without outer brackets."""
    text = text.strip()
    if depth > MAX_DEPTH:
        return text
    parts = split(text, "comma")
    if len(parts) > 1:
        return Sequence("list", "", _with_both_signs(parts))
    unions = split(text, "cup")
    if len(unions) > 1:
        return Sequence("union", "", tuple(unions))
    opening, inner, closing = _unbracket(text)
    matrix = _MATRIX.fullmatch(text)
    if matrix:
        return _matrix(matrix["body"]) or text
    if not opening:
        expanded = _with_both_signs([text])
        return Sequence("list", "", expanded) if len(expanded) > 1 else text
    members = split(inner, "comma")
    if opening in ("\\{", "{"):
        if len(members) > 1 or opening == "\\{":
            return Sequence("set", "", _with_both_signs(members))
        return parse(inner, depth + 1)
    if len(members) > 1:
        return Sequence("ordered", opening + closing, tuple(members))
    return parse(inner, depth + 1) if (opening, closing) == ("(", ")") else text


def _matrix(body: str) -> Sequence | None:
    """The entries of a matrix, row by row; None where the rows differ in length."""
    rows = [row.split("&") for row in re.split(r"\\\\(?:\[[^\]]*\])?|\\cr", body)]
    rows = [row for row in rows if any(entry.strip() for entry in row)]
    widths = {len(row) for row in rows}
    if len(widths) != 1:
        return None
    entries = tuple(entry.strip() for row in rows for entry in row)
    return Sequence("matrix", f"{len(rows)}x{widths.pop()}", entries)


def split(text: str, separator: str) -> list[str]:
    """Split at the ``comma``, ``cup`` or ``equals`` tokens that stand outside all brackets."""
    parts, start, level = [], 0, 0
    for match in _TOKEN.finditer(text):
        if match["open"]:
            level += 1
        elif match["close"]:
            level -= 1
        elif level == 0 and match[separator]:
            parts.append(text[start : match.start()].strip())
            start = match.end()
    parts.append(text[start:].strip())
    if level != 0:  # unbalanced: it is not a sequence
        return [text]
    return [part for part in parts if part]


def _unbracket(text: str) -> tuple[str, str, str]:
    """(opening, inside, closing) if one pair of brackets surrounds the whole text."""
    level, opening = 0, ""
    for match in _TOKEN.finditer(text):
        if match["open"]:
            if level == 0:
                if match.start() != 0 or match[0].startswith("\\begin"):
                    return "", text, ""
                opening = match[0]
            level += 1
        elif match["close"]:
            level -= 1
            if level == 0:
                if match.end() != len(text):
                    return "", text, ""
                return opening, text[len(opening) : match.start()], match[0]
    return "", text, ""


def _with_both_signs(members: list[str]) -> tuple[str, ...]:
    """Write a member with one ± as two."""
    expanded: list[str] = []
    for member in members:
        if len(_PLUS_MINUS.findall(member)) == 1:
            head, tail = _PLUS_MINUS.split(member)
            expanded += [f"{head}+{tail}" if head.strip() else tail, f"{head}-{tail}"]
        else:
            expanded.append(member)
    return tuple(expanded)


Compare = Callable[[str, str], bool | None]


def ordered_match(first: tuple[str, ...], second: tuple[str, ...], same: Compare) -> bool | None:
    """Whether all members are the same in order; None where some are undecided."""
    if len(first) != len(second):
        return False
    undecided = False
    for one, other in zip(first, second, strict=True):
        verdict = same(one, other)
        if verdict is False:
            return False
        undecided = undecided or verdict is None
    return None if undecided else True


def unordered_match(first: tuple[str, ...], second: tuple[str, ...], same: Compare) -> bool | None:
    """Whether the members are the same in some order; None where that is undecided."""
    if len(first) != len(second):
        return False
    left = list(second)
    undecided = False
    for one in first:
        verdicts = []
        for index, other in enumerate(left):
            verdict = same(one, other)
            if verdict:
                del left[index]
                break
            verdicts.append(verdict)
        else:
            if all(verdict is False for verdict in verdicts):
                return False
            undecided = True
    return None if undecided else True

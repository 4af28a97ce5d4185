"""Sequences in answers: tuples, intervals, sets, lists and unions, split at their own commas."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from evaluator.graders.normalise import parse_number

MAX_DEPTH = 50

_TOKEN = re.compile(
    r"(?P<open>\\\{|\\begin\{\w+\*?\}|[{(\[])|(?P<close>\\\}|\\end\{\w+\*?\}|[})\]])"
    r"|(?P<equals>=)|(?P<cup>\\cup(?![a-zA-Z]))|(?P<comma>(?P<semicolon>;)|,(?:\s*(?:and|or)\b)?|(?P<conjunction>(?<![a-zA-Z\\])(?:and|or)(?![a-zA-Z])))"
    r"|\\[a-zA-Z]+|\\."
)
_MATRIX = re.compile(
    r"\\begin\{(?P<kind>[pbB]?matrix|array|smallmatrix)\}(?:\{[lcr|]*\})?"
    r"(?P<body>(?:(?!\\begin).)*)\\end\{(?P=kind)\}"
)
_SYSTEM = re.compile(
    r"\\begin\{(?P<kind>cases|aligned|align\*?|gathered)\}"
    r"(?P<body>(?:(?!\\begin).)*)\\end\{(?P=kind)\}"
)
_CONDITION = re.compile(
    r"(?P<name>[a-zA-Z])\s*(?P<relation>[<>]|\\[lg]eq(?![a-zA-Z]))\s*(?P<bound>[^<>=]+)"
)
_RELATION = re.compile(r"[<>]|\\(?:leq|geq)(?![a-zA-Z])")
_CHAIN = re.compile(
    r"(?P<left>[^<>=,]+?)\s*(?P<first>[<>]|\\[lg]eq(?![a-zA-Z]))\s*(?P<name>[a-zA-Z])\s*"
    r"(?P<second>[<>]|\\[lg]eq(?![a-zA-Z]))\s*(?P<right>[^<>=,]+)"
)
MAX_CONDITION_CHARACTERS = 200
_NAMED = re.compile(r"(\\?[a-zA-Z]+'?(?:_\{\w+\})?)=(?!=)")
_PLUS_MINUS = re.compile(r"\\(?P<sign>pm|mp)(?![a-zA-Z])\s*")
_ROOT_OF_X = re.compile(r"x_\{[1-9]\}")
_COORDINATES = frozenset("xyz")
MAX_UNORDERED = 24  # members not spelled the same whose partners are looked for


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

    @property
    def holds_one(self) -> bool:
        """A set of one thing, which stands for it; the set of the empty set is not empty."""
        return self.is_unordered and len(self.members) == 1 and self.members[0] != "\\emptyset"

    @property
    def is_named(self) -> bool:
        """A list of assignments to different names, as ``x=4, y=5``; one may have several values.

        ``x_1=4, x_2=5`` are two values of one.
        """
        names = [match[1] for match in map(_NAMED.match, self.members) if match]
        if self.kind != "list" or not len(set(names)) == len(self.members) > 1:
            return False
        return not all(map(_ROOT_OF_X.fullmatch, names))

    @property
    def by_name(self) -> tuple[str, ...]:
        """Members as coordinates: ``y=2, x=3`` is the point (3, 2).

        Other names have no order of their own; their members stay as they stand.
        """
        names = [member.partition("=")[0].strip() for member in self.members]
        if not self.is_named or not set(names) <= _COORDINATES:
            return self.members
        return tuple(member for _, member in sorted(zip(names, self.members, strict=True)))


def parse(text: str, depth: int = 0) -> Sequence | str:  # noqa: PLR0911 - a list of cases
    """Split a cleaned answer into a sequence; what is none comes back without outer brackets."""
    text = text.strip()
    if depth > MAX_DEPTH:
        return text
    groups = _groups(text)
    if groups:
        return Sequence("list", "", groups)
    parts = split(text, "comma")
    if len(parts) > 1:
        return Sequence("list", "", _with_both_signs(parts))
    unions = split(text, "cup")
    if len(unions) > 1:
        return Sequence("union", "", tuple(unions))
    system = _SYSTEM.fullmatch(text)
    if system:
        rows = re.split(r"\\\\", system["body"].replace("&", ""))
        return parse(",".join(row.strip(" ,") for row in rows if row.strip(" ,")), depth + 1)
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


def _groups(text: str) -> tuple[str, ...]:
    """Solutions in groups: ``5, 2; 7, 2`` are two, not four; ``p=5, q=2 and p=7, q=2`` too."""
    for separator in ("semicolon", "conjunction"):
        groups = split(text, separator)
        members = [split(group, "comma") for group in groups]
        if len(groups) > 1 and len({len(group) for group in members}) == 1 < len(members[0]):
            if separator == "semicolon":
                return tuple(groups)
            names = [
                [match and match[1] for match in map(_NAMED.match, group)] for group in members
            ]
            if None not in names[0] and all(group == names[0] for group in names):
                return tuple(groups)
    return ()


def intervals(text: str) -> tuple[str, str] | None:  # noqa: PLR0911 - a list of cases
    """``x<-1 or x>1`` as (the name, a union of intervals), ``1<x<3`` as (the name, an interval).

    None for a single condition and for what is none.
    """
    if len(text) > MAX_CONDITION_CHARACTERS or not _RELATION.search(text):
        return None
    chain = _CHAIN.fullmatch(text)
    if chain:
        return _between(chain)
    both = re.split(r"\s+and\s+|,|\\land(?![a-zA-Z])|\\wedge(?![a-zA-Z])", text)
    either = re.split(r"\s+or\s+|\\cup(?![a-zA-Z])|\\lor(?![a-zA-Z])|\\vee(?![a-zA-Z])", text)
    parts = both if len(both) == 2 else either
    if parts is either:
        return _union(parts)
    matches = [match for match in (_CONDITION.fullmatch(part.strip()) for part in parts) if match]
    if len(matches) != len(parts) or len({match["name"] for match in matches}) != 1:
        return None
    upward = [match["relation"] in (">", "\\geq") for match in matches]
    if upward[0] == upward[1]:
        return None
    low, high = matches if upward[0] else reversed(matches)
    ends = parse_number(low["bound"].strip()), parse_number(high["bound"].strip())
    if ends[0] and ends[1] and ends[0].value >= ends[1].value:
        return None  # nothing lies between them
    return low["name"], _interval(low).partition(",")[0] + "," + _interval(high).partition(",")[2]


def _union(parts: list[str]) -> tuple[str, str] | None:
    """The intervals of ``x<-1`` and ``1<x<3``, joined, if all conditions are on one name."""
    found = []
    for part in parts:
        chain, single = _CHAIN.fullmatch(part.strip()), _CONDITION.fullmatch(part.strip())
        between = _between(chain) if chain else None
        if between is None and single is None:
            return None
        found.append(between or (single["name"], _interval(single)))  # type: ignore[index, arg-type]
    if len(found) < 2 or len({name for name, _ in found}) != 1:
        return None
    return found[0][0], "\\cup ".join(interval for _, interval in found)


def _between(chain: re.Match[str]) -> tuple[str, str] | None:
    """The interval of ``1<x<3`` or ``3>x>1``."""
    relations = chain["first"], chain["second"]
    upward = [relation in ("<", "\\leq") for relation in relations]
    if upward[0] != upward[1]:
        return None
    ends = (chain["left"].strip(), relations[0]), (chain["right"].strip(), relations[1])
    low, high = ends if upward[0] else reversed(ends)
    opening, closing = "[" if "eq" in low[1] else "(", "]" if "eq" in high[1] else ")"
    return chain["name"], f"{opening}{low[0]},{high[0]}{closing}"


def _interval(condition: re.Match[str]) -> str:
    relation, bound = condition["relation"], condition["bound"].strip()
    closed = relation in ("\\leq", "\\geq")
    if relation in ("<", "\\leq"):
        return f"(-\\infty,{bound}{']' if closed else ')'}"
    return f"{'[' if closed else '('}{bound},\\infty)"


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
    """Split at the tokens of a kind that stand outside all brackets.

    ``comma`` (which a semicolon and a conjunction are too), ``semicolon``, ``conjunction``, ``cup``
    or ``equals``.
    """
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
    """Write a member with one ± (and one ∓, its opposite) as two."""
    expanded: list[str] = []
    for member in members:
        signs = [match["sign"] for match in _PLUS_MINUS.finditer(member)]
        if signs and len(signs) == len(set(signs)):
            expanded += [_with_sign(member, "pm"), _with_sign(member, "mp")]
        else:
            expanded.append(member)
    return tuple(expanded)


def _with_sign(member: str, plus: str) -> str:
    text = _PLUS_MINUS.sub(lambda match: "+" if match["sign"] == plus else "-", member)
    return text.strip().removeprefix("+")


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
    first, second = _without_common(first, second), _without_common(second, first)
    if len(first) > MAX_UNORDERED:
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
    if undecided and any(all(same(one, other) is False for one in first) for other in second):
        return False
    return None if undecided else True


def _without_common(members: tuple[str, ...], others: tuple[str, ...]) -> tuple[str, ...]:
    """Members without those that stand among the others word for word, each as often."""
    partners = Counter(others)
    left = []
    for member in members:
        if partners[member] > 0:
            partners[member] -= 1
        else:
            left.append(member)
    return tuple(left)

"""Answers of a form of their own, compared part by part: dates, ratios, congruences."""

from __future__ import annotations

import re

from evaluator.graders import values
from evaluator.graders.expressions import Tree, UnreadableError, read

_DATE = re.compile(r"\d{4}-\d{1,2}-\d{1,2}|\d{1,2}/\d{1,2}/\d{4}")
_TIME = re.compile(r"(?:[01]?\d|2[0-4]):[0-5]\d(?::[0-5]\d)?")
_RATIO = re.compile(r"[^:=<>,;]+(?::[^:=<>,;]+)+")
_WHOLE_RATIO = re.compile(r"[1-9]\d{0,17}(?::[1-9]\d{0,17})+")
_CONGRUENCE = re.compile(
    r"(?P<left>[^=<>]+?)\s*\\equiv(?![a-zA-Z])\s*(?P<rest>-?\d{1,30}|[^=<>()\\]+?)\s*"
    r"(?:\\pmod\s*(?:\{(?P<a>\w+)\}|(?P<b>\w))|\(?\\?[bp]?mod\s*(?:\{(?P<c>\w+)\}|(?P<d>\w+))\)?)"
)
MAX_CHARACTERS = 200


def same_form(one: str, other: str) -> bool | None:
    """Whether two cleaned answers are the same; None where neither is of such a form."""
    if max(len(one), len(other)) > MAX_CHARACTERS:
        return None
    if _DATE.fullmatch(one) or _DATE.fullmatch(other):
        return one == other  # no sum and no quotient
    if _RATIO.fullmatch(one) and _RATIO.fullmatch(other):
        return _same_ratio(one, other)
    if "\\equiv" in one and "\\equiv" in other:
        return _same_congruence(one, other)
    return None


def _same_ratio(one: str, other: str) -> bool:
    """Whether 2:4 and 1:2 are the same ratio. Two times of day are the same only as text."""
    if _TIME.fullmatch(one) and _TIME.fullmatch(other):
        return one == other
    first, second = one.split(":"), other.split(":")
    if len(first) != len(second):
        return False
    if not (_WHOLE_RATIO.fullmatch(one) and _WHOLE_RATIO.fullmatch(other)):
        return _same_expressions(first, second)
    left, right = [int(part) for part in first], [int(part) for part in second]
    return all(a * right[0] == b * left[0] for a, b in zip(left, right, strict=True))


def _same_expressions(first: list[str], second: list[str]) -> bool:
    r"""Whether a ratio such as ``1:\sqrt{2}`` is the same; all its parts have values but 0."""
    try:
        left, right = ([read(part) for part in side] for side in (first, second))
    except UnreadableError:
        return False
    trees = [tree for tree in (*left, *right) if tree is not None]
    if len(trees) < 2 * len(left) or any(values.constant(tree) == 0 for tree in trees):
        return False
    return all(
        values.compare(_times(a, trees[len(left)]), _times(b, trees[0])) is True
        for a, b in zip(trees[: len(left)], trees[len(left) :], strict=True)
    )


def _times(one: Tree, other: Tree) -> Tree:
    return ("product", (one, other))


def _same_congruence(one: str, other: str) -> bool | None:
    """Whether two residues are the same: ``n = 4 mod 3`` is ``n = 1 mod 3``."""
    first, second = _CONGRUENCE.fullmatch(one), _CONGRUENCE.fullmatch(other)
    if first is None or second is None:
        return None
    modulus, others = (
        match["a"] or match["b"] or match["c"] or match["d"] for match in (first, second)
    )
    if first["left"] != second["left"] or modulus != others:
        return False
    left, right = first["rest"], second["rest"]
    numbers = (left, right, modulus)
    if all(re.fullmatch(r"-?\d{1,30}", text) for text in numbers) and int(modulus):
        return (int(left) - int(right)) % int(modulus) == 0
    return left == right

"""Countdown answers: an expression is right if its value is the target and it uses the numbers."""

from __future__ import annotations

import re
from collections import Counter
from fractions import Fraction

from evaluator.graders.base import Grader
from evaluator.protocol import GradingPolicy

MAX_ANSWER_CHARACTERS = 300
_MAX_DIGITS = 6  # of a number; every number given is smaller
_GOLD = re.compile(r"(?P<target>\d+) from (?P<numbers>\d+(?:, \d+)+)")
_TOKEN = re.compile(r"\s*(?:(\d+)|(.))", re.DOTALL)
# LaTeX's and typography's signs; each is the sign itself and nothing else.
_SIGNS = {
    "\\times": "*", "\\cdot": "*", "\\div": "/", "\\left": "", "\\right": "", "\\,": "", "\\;": "",
    "\\!": "", "$": "", "×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "[": "(", "]": ")",
}  # fmt: skip
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")


class CountdownGrader(Grader):
    """Compares an expression with ``24 from 3, 5, 7, 9``; two expressions by their values.

    Each number has to be used exactly once. Arithmetic is exact, so 8/(3−8/3) is 24.
    """

    name = "countdown"
    version = 1

    def equal_fast(self, first: str, second: str, policy: GradingPolicy) -> bool:
        """Whether one solves the other, or both are expressions of one value and numbers."""
        one, other = _read(first), _read(second)
        return one is not None and one == other


def _read(text: str) -> tuple[Fraction, Counter[int]] | None:
    """(value, numbers used) of a reference answer or of an expression; None for anything else."""
    if len(text) > MAX_ANSWER_CHARACTERS:
        return None
    if (gold := _GOLD.fullmatch(text.strip())) is not None:
        numbers = Counter(map(int, gold["numbers"].split(", ")))
        return Fraction(int(gold["target"])), numbers
    for sign, plain in _SIGNS.items():
        text = text.replace(sign, plain)
    while (replaced := _FRACTION.sub(r"((\1)/(\2))", text)) != text:
        text = replaced
    left, equals, right = text.partition("=")
    try:
        value, numbers = _Expression(left).read()
        # "… = 24" says what it is worth; if that is not so, it is not an answer.
        if equals and _Expression(right).read()[0] != value:
            return None
    except (ValueError, ZeroDivisionError, RecursionError):
        return None
    return value, numbers


class _Expression:
    """A recursive-descent reader of sums, products and parentheses; evaluates nothing else."""

    def __init__(self, text: str) -> None:
        self._tokens = [number or sign for number, sign in _TOKEN.findall(text.strip())]
        self._at = 0
        self._used: Counter[int] = Counter()

    def read(self) -> tuple[Fraction, Counter[int]]:
        """(value, numbers used); ValueError for what is not an expression."""
        value = self._sum()
        if self._at < len(self._tokens):
            raise ValueError("something stands behind the expression")
        return value, self._used

    def _next(self, signs: str) -> str | None:
        """Take the next token if it is one of ``signs``."""
        token = self._tokens[self._at] if self._at < len(self._tokens) else ""
        if not token or token not in signs:
            return None
        self._at += 1
        return token

    def _sum(self) -> Fraction:
        value = self._product()
        while (sign := self._next("+-")) is not None:
            term = self._product()
            value = value + term if sign == "+" else value - term
        return value

    def _product(self) -> Fraction:
        value = self._factor()
        while (sign := self._next("*/")) is not None:
            factor = self._factor()
            value = value * factor if sign == "*" else value / factor
        return value

    def _factor(self) -> Fraction:
        if self._next("-"):
            return -self._factor()
        if self._next("("):
            value = self._sum()
            if not self._next(")"):
                raise ValueError("a parenthesis is not closed")
            return value
        token = self._tokens[self._at] if self._at < len(self._tokens) else ""
        if not (token.isascii() and token.isdigit()) or len(token) > _MAX_DIGITS:
            raise ValueError("a number is missing")
        self._at += 1
        self._used[int(token)] += 1
        return Fraction(int(token))

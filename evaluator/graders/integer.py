"""Integer answers, as AIME's: leading zeros are the same number, a non-integer is wrong."""

from __future__ import annotations

from evaluator.graders.base import Grader
from evaluator.graders.normalise import clean, parse_number, right_side
from evaluator.protocol import GradingPolicy

MAX_ANSWER_CHARACTERS = 5000


class IntegerGrader(Grader):
    """Compares as integers; whatever is not one equals nothing."""

    name = "integer"
    version = 3

    def equal_fast(self, first: str, second: str, policy: GradingPolicy) -> bool:
        """Whether both are the same integer."""
        one, other = _integer(first), _integer(second)
        return one is not None and one == other


def _integer(answer: str) -> int | None:
    """The integer that ``answer`` stands for: ``025``, ``1,024``, ``n = 25`` and ``25.0`` too."""
    if len(answer) > MAX_ANSWER_CHARACTERS:
        return None
    text = clean(answer).text
    number = parse_number(text) or parse_number(right_side(text))
    if number is None or number.percent or number.value.denominator != 1:
        return None
    return number.value.numerator

"""Integer answers, as AIME's: leading zeros are the same number, a non-integer is wrong."""

from __future__ import annotations

from evaluator.graders.base import Grader
from evaluator.graders.extraction import read_answer
from evaluator.graders.normalise import clean, parse_number, right_side
from evaluator.graders.structure import split
from evaluator.protocol import GradingPolicy

MAX_ANSWER_CHARACTERS = 5000


class IntegerGrader(Grader):
    """Compares as integers; whatever is not one equals nothing."""

    name = "integer"
    version = 4

    def read(self, prediction: str, policy: GradingPolicy) -> str:
        """The answer in a text that was given as one: out of its box or its sentence."""
        return read_answer(prediction, policy)

    def equal_fast(self, first: str, second: str, policy: GradingPolicy) -> bool:
        """Whether both are the same integer."""
        one, other = _integer(first), _integer(second)
        return one is not None and one == other


def _integer(answer: str) -> int | None:
    """The integer that ``answer`` stands for: ``025``, ``1,024``, ``n = 25`` and ``25.0`` too."""
    if len(answer) > MAX_ANSWER_CHARACTERS:
        return None
    text = clean(answer).text
    number = parse_number(text)
    if number is None and "=" in text:
        if len(split(text, "comma")) > 1:
            return None  # x=24, y=25 names two
        sides = [side for side in map(parse_number, split(text, "equals")) if side is not None]
        if len({side.value for side in sides}) == 1:  # 24=25 says nothing
            number = parse_number(right_side(text))
    if number is None or number.percent or number.value.denominator != 1:
        return None
    return number.value.numerator

"""Why a verdict stands, in words: what the two answers are worth."""

from __future__ import annotations

import mpmath  # type: ignore[import-untyped]

from evaluator.graders import values
from evaluator.graders.expressions import UnreadableError, read
from evaluator.graders.extraction import read_answer
from evaluator.graders.normalise import clean, left_side, parse_number
from evaluator.graders.structure import Sequence, parse
from evaluator.protocol import GradingPolicy

SHOWN_DIGITS = 20


def reason(gold: str, answer: str, equal: bool) -> str:
    """One clause: why ``answer`` is, or is not, ``gold``."""
    one, other = _cleaned(gold), _cleaned(answer)
    names = [name for name in (left_side(one), left_side(other)) if name]
    with mpmath.workdps(2 * SHOWN_DIGITS):
        return _why_equal(one, other, names) if equal else _why_different(one, other)


def _cleaned(text: str) -> str:
    return clean(read_answer(text, GradingPolicy())).text


def _why_equal(one: str, other: str, names: list[str]) -> str:
    if one == other:
        return "the same once markup, unit and sentence are off"
    value = None if "=" in one and "=" in other else _value(one)
    if value is not None and value == _value(other):
        return f"both are {value}"
    if "=" in one and "=" in other and not names:
        return "one equation is a multiple of the other"
    if names:
        return f"the same value; only one side writes its name {', '.join(sorted(set(names)))}"
    left, right = parse(one), parse(other)
    if isinstance(left, Sequence) and isinstance(right, Sequence):
        return "the same members, and order does not tell them apart"
    return "equal wherever both are defined, to 60 digits at fixed points"


def _why_different(one: str, other: str) -> str:
    left, right = parse(one), parse(other)
    if isinstance(left, Sequence) or isinstance(right, Sequence):
        return _why_sequences_differ(left, right)
    first, second = parse_number(one), parse_number(other)
    if first and second and first.value != second.value:
        if 0 < abs(first.value - second.value) <= abs(first.value) / 200:
            return f"a rounding (policy `rounding`): {_value(one)} against {_value(other)}"
        return f"{_value(one)} against {_value(other)}"
    values_of = _value(one), _value(other)
    if None not in values_of and values_of[0] != values_of[1]:
        close = float(abs(mpmath.mpf(values_of[0]) - mpmath.mpf(values_of[1]))) < 0.01
        rounding = "a rounding (policy `rounding`): " if close else ""
        return f"{rounding}{values_of[0]} against {values_of[1]}"
    if values_of[0] is not None and values_of[0] == values_of[1]:
        return "equal in value, but the function of the angle is left to compute (policy)"
    return "not shown to be equal: " + _unread(one, other)


def _why_sequences_differ(left: Sequence | str, right: Sequence | str) -> str:
    counts = [len(side.members) if isinstance(side, Sequence) else 1 for side in (left, right)]
    if counts[0] != counts[1]:
        word = "an extra" if counts[1] > counts[0] else "a missing"
        return f"{word} member: {counts[0]} against {counts[1]}"
    kinds = [
        side.kind + side.brackets if isinstance(side, Sequence) else "" for side in (left, right)
    ]
    if kinds[0] != kinds[1]:
        return f"other brackets or kind: {kinds[0]} against {kinds[1]}"
    return "a member differs"


def _unread(one: str, other: str) -> str:
    for text in (one, other):
        try:
            read(text)
        except UnreadableError as error:
            return f"`{text[:40]}` is no expression ({error})".replace("|", "\\|")
    return "their values differ"


def _value(text: str) -> str | None:
    """The value of an answer without symbols, to 20 digits; None for all else."""
    number = parse_number(text)
    if number is not None:
        return _decimal(mpmath.mpf(number.value.numerator) / number.value.denominator) + (
            " %" if number.percent else ""
        )
    try:
        tree = read(text.rpartition("=")[2])
    except UnreadableError:
        return None
    value = None if tree is None else values.constant(tree)
    if value is None or isinstance(value, mpmath.mpc):
        return None
    exact = (
        value if isinstance(value, mpmath.mpf) else mpmath.mpf(value.numerator) / value.denominator
    )
    return _decimal(exact)


def _decimal(value: mpmath.mpf) -> str:
    shown = mpmath.nstr(value, SHOWN_DIGITS, min_fixed=-5, max_fixed=9)
    return str(shown).removesuffix(".0")

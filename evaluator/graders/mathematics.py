"""Mathematical answers, as MATH's: equivalence by exact numbers, by structure, by evaluation.

``equal_fast`` decides numbers and equal spellings; ``equal_slow`` asks math-verify about what is
left. Sequences are compared here, member by member, because brackets, order and missing members
matter and math-verify is lenient about all three; decimals become exact fractions before it sees
them, because it rounds.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from evaluator.errors import GraderError
from evaluator.graders.base import Grader
from evaluator.graders.normalise import (
    Number,
    clean,
    left_side,
    parse_number,
    units_conflict,
)
from evaluator.graders.structure import Sequence, ordered_match, parse, split, unordered_match
from evaluator.protocol import GradingPolicy

MAX_COMPARED_CHARACTERS = 5000  # longer answers are the same only word for word
MAX_EVALUATED_CHARACTERS = 1000  # longer answers are compared as text only
SOLVED_SYMBOLS = 2  # equations in more symbols are compared as multiples of each other only
ROUNDING_DECIMALS = 2  # fewest digits after the point that count as a rounding

_POINTS = (29, 53, -37)  # over 41: numerators of the values that are put in for symbols

Evaluate = Callable[[str, str, GradingPolicy], bool | None]

# Towers and factorials that would fill the memory; they are compared as text only.
_HUGE = re.compile(
    r"\^\{?-?\d{5,}|\d\}?\^\{?\(?-?\d+\}?\^|\^\{?\d{3,}\}?\)+\}?\^\{?\d{3,}"
    r"|\d{4,}\)?\}?!|!!|\\uparrow"
)
_DECIMAL = re.compile(r"(?<![\w.])(\d*)\.(\d+)(?![\d.]|\\overline|\\dot)")
_MEMBER_OF = re.compile(r"^\\?[a-zA-Z]+(?:_\{\w+\})?\s*\\in(?![a-zA-Z])\s*")
_NAME_LAST = re.compile(r"^(?P<value>[^=]+)=[a-zA-Z]$")
_WORDS = re.compile(r"[A-Za-z]{4,}|[A-Za-z]{2,}(?:[ -][A-Za-z]+)+")
_EVALUATED_AS_SET = re.compile(r"[<>]|\\(?:leq|geq|neq|begin|mathbb|emptyset|setminus|infty)")


class MathGrader(Grader):
    """Compares as mathematics. Symmetric and total; bounded by the pool that calls it."""

    name = "math"
    version = 1

    def equal_fast(self, first: str, second: str, policy: GradingPolicy) -> bool | None:
        """Whether both are the same, if numbers, spelling and structure tell; else None."""
        return _equal(first, second, policy, lambda one, other, policy: None)

    def equal_slow(self, first: str, second: str, policy: GradingPolicy) -> bool:
        """Whether both are the same, by evaluation where nothing else tells."""
        return bool(_equal(first, second, policy, _evaluated_equal))


def _equal(first: str, second: str, policy: GradingPolicy, evaluate: Evaluate) -> bool | None:
    if max(len(first), len(second)) > MAX_COMPARED_CHARACTERS:
        return first.split() == second.split()
    one, other = clean(first), clean(second)
    if not one.text or not other.text:
        return False
    if policy.units and units_conflict(one.unit, other.unit):
        return False
    if not policy.units and one.unit != other.unit:
        return False
    return _same(one.text, other.text, policy, evaluate)


def _same(one: str, other: str, policy: GradingPolicy, evaluate: Evaluate) -> bool | None:
    """Compare cleaned answers, or members of their sequences."""
    verdict = _same_text(one, other, policy)
    if verdict is not None:
        return verdict
    one, other = _without_names(one, other)
    verdict = _same_text(one, other, policy)
    if verdict is not None:
        return verdict
    left, right = parse(one), parse(other)
    if isinstance(left, Sequence) or isinstance(right, Sequence):
        return _same_sequences(left, right, (one, other), policy, evaluate)
    verdict = _same_text(left, right, policy)
    if verdict is not None:
        return verdict
    if _WORDS.fullmatch(left) or _WORDS.fullmatch(right):
        return False
    return _evaluate(left, right, policy, evaluate)


def _evaluate(one: str, other: str, policy: GradingPolicy, evaluate: Evaluate) -> bool | None:
    """Evaluate what is small enough for it."""
    if max(len(one), len(other)) > MAX_EVALUATED_CHARACTERS:
        return False
    if _HUGE.search(one) or _HUGE.search(other):
        return False
    return evaluate(one, other, policy)


def _same_text(one: str, other: str, policy: GradingPolicy) -> bool | None:
    """Compare spellings and exact numbers; None where they do not tell."""
    if _spelling(one) == _spelling(other):
        return True
    first, second = parse_number(one), parse_number(other)
    if first is None or second is None:
        return None
    return _same_number(first, second, policy)


def _spelling(text: str) -> str:
    """Text answers are the same whatever their case; symbols are not."""
    joined = text.replace(" ", "").removeprefix("+")
    return joined.casefold() if _WORDS.fullmatch(text.strip()) else joined


def _same_number(one: Number, other: Number, policy: GradingPolicy) -> bool:
    """Compare exactly, but for what the policy allows."""
    if one.percent != other.percent:
        if not policy.percent:
            return False
        percent, plain = (one, other) if one.percent else (other, one)
        candidates = [percent.value, percent.value / 100]
        return plain.value in candidates
    if one.value == other.value:
        return True
    return policy.rounding and (_rounds_to(one, other) or _rounds_to(other, one))


def _rounds_to(exact: Number, rounded: Number) -> bool:
    """Whether ``rounded`` is ``exact`` to the decimals that it shows."""
    digits = rounded.decimals
    if digits is None or digits < ROUNDING_DECIMALS:
        return False
    if exact.decimals is not None and exact.decimals <= digits:
        return False
    return bool(2 * abs(exact.value - rounded.value) * 10**digits <= 1)


def _without_names(one: str, other: str) -> tuple[str, str]:
    r"""Take off ``x=``, ``f(x)=``, ``x \in`` and ``=x`` where the other answer lacks the name."""
    one, other = _MEMBER_OF.sub("", one), _MEMBER_OF.sub("", other)
    names = left_side(one), left_side(other)
    if names[0] is not None and names[0] == names[1]:
        return _without_name(one), _without_name(other)
    sides = split(one, "equals"), split(other, "equals")
    if len(sides[0]) == len(sides[1]) == 2 and sides[0][0] == sides[1][0]:
        one, other = sides[0][1], sides[1][1]
    elif len(sides[1]) == 1:
        one = _without_name(one)
    elif len(sides[0]) == 1:
        other = _without_name(other)
    return one, other


def _without_name(text: str) -> str:
    """The value of an assignment or of a chain of equalities; other equations stay as they are."""
    name = left_side(text)
    last = _NAME_LAST.match(text)
    if name is not None:
        rest = text[len(name) + 1 :]
        if not isinstance(parse(rest), Sequence):
            return split(rest, "equals")[-1]
        return text if "=" in rest else rest  # x=4, y=5 keeps its names
    return last["value"] if last else text


def _same_sequences(  # noqa: PLR0911 - a list of cases
    left: Sequence | str,
    right: Sequence | str,
    texts: tuple[str, str],
    policy: GradingPolicy,
    evaluate: Evaluate,
) -> bool | None:
    """Compare where at least one side is a sequence."""

    def same(one: str, other: str) -> bool | None:
        return _same(one, other, policy, evaluate)

    if isinstance(left, str) or isinstance(right, str):
        sequence, single = (right, left) if isinstance(left, str) else (left, right)
        if not isinstance(sequence, Sequence) or not isinstance(single, str):
            return False
        if sequence.is_unordered and len(sequence.members) == 1:
            return same(sequence.members[0], single)
        if _EVALUATED_AS_SET.search(single):
            return _evaluate(*texts, policy, evaluate)
        return False
    if left.kind == right.kind and left.kind in ("ordered", "matrix"):
        if left.brackets != right.brackets:
            return False
        return ordered_match(left.members, right.members, same)
    if left.is_unordered and right.is_unordered:
        return unordered_match(left.members, right.members, same)
    if "union" in (left.kind, right.kind):
        if left.kind == right.kind and unordered_match(left.members, right.members, same):
            return True
        return _evaluate(*texts, policy, evaluate)
    if {left.kind, right.kind} == {"ordered", "list"} and "()" in (left.brackets, right.brackets):
        return ordered_match(left.members, right.members, same)
    return False


def _evaluated_equal(one: str, other: str, policy: GradingPolicy) -> bool:
    """Ask math-verify, in both directions. What it cannot read equals nothing.

    Its own time limits need signals and fail on some inputs: they are off, and the pool limits
    the CPU time and the memory of this process instead.
    """
    from math_verify import verify

    first, second = _expression(one), _expression(other)
    if first is None or second is None:
        return False
    if policy.rounding and _evaluated_rounding(one, second, other, first):
        return True
    verdict = True if first == second else _numerically_equal(first, second)
    if verdict is None:
        verdict = _proportional_equations(first, second)
    if verdict is not None:
        return verdict
    options = {
        "float_rounding": 12,
        "numeric_precision": 15,
        "allow_set_relation_comp": True,
        "timeout_seconds": None,
        "raise_on_error": True,
    }
    try:
        return bool(verify(first, second, **options) and verify(second, first, **options))
    except (MemoryError, RecursionError) as error:
        raise GraderError(f"comparing ran out of room ({type(error).__name__})") from error
    except Exception:
        # Its comparison is not defined for these two kinds of object: they are not shown equal.
        return False


def _numerically_equal(first: Any, second: Any) -> bool | None:
    """Compare values to 40 digits at fixed points; None where that does not tell.

    It decides most pairs in milliseconds and some identities that simplifying does not find. A
    difference counts at positive points only, where roots and powers have one branch; equality
    must hold at points of both signs. Points where a value is not real are passed over.
    """
    from sympy import Expr

    if not (isinstance(first, Expr) and isinstance(second, Expr)):
        return None
    symbols = sorted(first.free_symbols | second.free_symbols, key=str)
    if not symbols:
        return _near(first, second, real=False)
    agreed = []
    for numerator in _POINTS:
        values = {symbol: _point(numerator, index) for index, symbol in enumerate(symbols)}
        near = _near(first.subs(values), second.subs(values), real=True)
        if near is False and numerator > 0:
            return False
        agreed.append(near)
    return True if agreed.count(True) >= 2 and False not in agreed and agreed[-1] else None


def _proportional_equations(first: Any, second: Any) -> bool | None:
    """Whether two equations are multiples of each other; None for what are not two equations.

    Equations in three symbols or more that are no multiples are taken to differ: solving them for
    all their symbols takes minutes and finds nothing. In fewer, solving decides (None).
    """
    from sympy import Eq

    if not (isinstance(first, Eq) and isinstance(second, Eq)):
        return None
    one, other = first.lhs - first.rhs, second.lhs - second.rhs
    symbols = sorted(one.free_symbols | other.free_symbols, key=str)
    ratios = []
    for numerator in _POINTS:
        values = {symbol: _point(numerator, index) for index, symbol in enumerate(symbols)}
        ratios.append((one.subs(values), other.subs(values)))
    if any(value.is_zero for pair in ratios for value in pair):
        return None
    base = ratios[0]
    same = [_near(base[0] * b, base[1] * a, real=True) for a, b in ratios[1:]]
    if all(same):
        return True
    return False if len(symbols) > SOLVED_SYMBOLS else None


def _point(numerator: int, index: int) -> Any:
    """A rational number of no special value, another for every symbol."""
    from sympy import Rational

    return Rational(numerator + (7 if numerator > 0 else -7) * index, 41)


def _near(first: Any, second: Any, *, real: bool) -> bool | None:
    """Whether two constants agree to 25 digits (True) or differ within 20 (False)."""
    from sympy import Rational

    try:
        one, other = first.doit().evalf(40), second.doit().evalf(40)
        difference = abs((first - second).doit().evalf(40))
        if not (one.is_number and other.is_number and difference.is_finite):
            return None
        if real and not (one.is_real and other.is_real):
            return None
        size = abs(one) + 1
        if difference > size * Rational(1, 10**20):
            return False
        return True if difference < size * Rational(1, 10**25) else None
    except (ArithmeticError, AttributeError, TypeError, ValueError):
        return None  # not defined for these values: nothing is shown


def _expression(text: str) -> Any:
    """Parse with math-verify; None where it finds no mathematics."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig
    from math_verify import parse as parse_mathematics

    exact = _DECIMAL.sub(lambda match: _as_fraction(match[1], match[2]), text)
    # Units and boxes are off already; taken for a unit, the m of 3m/2 would be lost.
    spelling = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none"
    )
    latex = LatexExtractionConfig(boxed_match_priority=-1, normalization_config=spelling)
    found = parse_mathematics(
        f"${exact}$",
        extraction_config=[latex],
        fallback_mode="no_fallback",
        parsing_timeout=None,
    )
    return found[0] if found else None


def _as_fraction(whole: str, decimals: str) -> str:
    return f"{{\\frac{{{int((whole or '0') + decimals)}}}{{{10 ** len(decimals)}}}}}"


def _evaluated_rounding(one: str, second: Any, other: str, first: Any) -> bool:
    """Whether one answer is a decimal rounding of the other's value."""
    from sympy import Rational

    for text, exact in ((one, second), (other, first)):
        number = parse_number(text)
        if number is None or number.decimals is None or number.decimals < ROUNDING_DECIMALS:
            continue
        value = exact.evalf(40) if hasattr(exact, "evalf") else None
        if value is None or not value.is_number or not value.is_real:
            continue
        decimal = Rational(number.value.numerator, number.value.denominator)
        if 2 * abs(value - decimal) * 10**number.decimals <= 1:
            return True
    return False

r"""The slow way: math-verify's reading and sympy's algebra, for what values alone do not decide.

Sums, integrals, inequalities, sets of solutions. Its own time limits need signals and fail on some
inputs: they are off, and the pool limits the CPU time and the memory of this process instead.
Decimals become exact fractions before it sees them, because it rounds.
"""

from __future__ import annotations

import re
from typing import Any

from evaluator.errors import GraderError

_POINTS = (29, 53, -37)  # over 41: numerators of the values that are put in for symbols
_DECIMAL = re.compile(r"(?<![\w.])(\d*)\.(\d+)(?![\d.]|\\overline|\\dot)")


def equal(one: str, other: str) -> bool:
    """Ask math-verify, in both directions. What it cannot read equals nothing.

    Raises GraderError where comparing ran out of memory or of stack.
    """
    from math_verify import verify

    try:
        first, second = _expression(one), _expression(other)
        if first is None or second is None:
            return False
        if first == second:
            return True
        verdict = _numerically_equal(first, second)
        if verdict is not None:
            return verdict
        options = {
            "float_rounding": 12,
            "numeric_precision": 15,
            "allow_set_relation_comp": True,
            "timeout_seconds": None,
            "raise_on_error": True,
        }
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

r"""The slow way: math-verify's reading and sympy's algebra, for what values alone do not decide.

Sums, integrals, inequalities, sets of solutions. Its own time limits need signals and fail on some
inputs: they are off, and the pool limits the CPU time and the memory of this process instead.
Decimals become exact fractions before it sees them, because it rounds.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from evaluator.errors import GraderError, UndecidedError

_POINTS = (29, 53, -37)  # over 41: numerators of the values that are put in for symbols
_NATURAL_POINTS = (5, 8, 11)  # where sums up to a symbol have values
_DECIMAL = re.compile(r"(?<![\w.])(\d*)\.(\d+)(?![\d.]|\\overline|\\dot)")
_SMALLEST = 1e-20  # of what is compared by its leading digits


def equal(one: str, other: str) -> bool:
    """Ask math-verify, in both directions. What it reads no mathematics in equals nothing.

    Raises UndecidedError where the libraries fail on these two texts: they would again. Raises
    GraderError where comparing ran out of memory or of stack. Whatever else is raised is a fault of
    this program or of its installation, and no verdict.
    """
    from latex2sympy2_extended import NormalizationConfig  # not there: no fault of the answers
    from math_verify import LatexExtractionConfig, parse, verify

    # Units and boxes are off already; taken for a unit, the m of 3m/2 would be lost.
    spelling = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none"
    )
    latex = LatexExtractionConfig(boxed_match_priority=-1, normalization_config=spelling)

    def expression(text: str) -> Any:
        found = parse(
            f"${_DECIMAL.sub(_as_fraction, text)}$",
            extraction_config=[latex],
            fallback_mode="no_fallback",
            parsing_timeout=None,
        )
        return found[0] if found else None

    def verified(first: Any, second: Any) -> bool:
        options = {
            "float_rounding": 12,
            "numeric_precision": 15,
            "allow_set_relation_comp": True,
            "timeout_seconds": None,
            "raise_on_error": True,
        }
        return bool(verify(first, second, **options) and verify(second, first, **options))

    first, second = (_asked("reading", expression, text) for text in (one, other))
    if first is None or second is None:
        return False
    if _asked("comparing", lambda: bool(first == second)):
        return True
    verdict: bool | None
    for way in (_same_solutions, _numerically_equal):
        verdict = _asked("comparing", way, first, second)
        if verdict is not None:
            return verdict
    verdict = _asked("comparing", verified, first, second)
    return bool(verdict)


def _asked(doing: str, ask: Callable[..., Any], *texts: Any) -> Any:
    """What a library says of these texts; its failures are told apart from ours."""
    try:
        return ask(*texts)
    except (MemoryError, RecursionError) as error:
        raise GraderError(f"{doing} ran out of room ({type(error).__name__})") from error
    except Exception as error:  # on hostile texts the libraries raise whatever they come upon
        raise UndecidedError(
            f"{doing} failed in the algebra system ({type(error).__name__})"
        ) from error


def _same_solutions(first: Any, second: Any) -> bool | None:
    """Whether two conditions on one real symbol, or one and a set, have the same solutions.

    None where either is no such condition, or where it is not known how to solve it.
    """
    from sympy import And, Interval, Or, Set, Symbol
    from sympy.core.relational import Relational

    conditions = (Relational, And, Or)
    if not any(isinstance(side, conditions) for side in (first, second)):
        return None
    names = [side.free_symbols for side in (first, second) if isinstance(side, conditions)]
    if any(len(each) != 1 or each != names[0] for each in names):
        return None
    solutions = []
    for side in (first, second):
        if isinstance(side, conditions):
            real = Symbol("x", real=True)
            try:
                solutions.append(side.subs({next(iter(names[0])): real}).as_set())
            except (NotImplementedError, TypeError, ValueError, AttributeError):
                return None
        elif isinstance(side, Set):
            solutions.append(side)
        elif isinstance(side, tuple) and len(side) == 2:
            solutions.append(Interval.open(*side))
        else:
            return None
    return True if solutions[0] == solutions[1] else None


def _numerically_equal(first: Any, second: Any) -> bool | None:
    """Compare values to 25 digits at fixed points; None where that does not tell.

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
    natural = _counts(first) or _counts(second)
    agreed = []
    for numerator in _NATURAL_POINTS if natural else _POINTS:
        values = {
            symbol: _point(numerator, index, 1 if natural else 41)
            for index, symbol in enumerate(symbols)
        }
        near = _near(first.subs(values), second.subs(values), real=True)
        if near is False and numerator > 0:
            return False
        agreed.append(near)
    return True if agreed.count(True) >= 2 and False not in agreed and agreed[-1] else None


def _counts(expression: Any) -> bool:
    """Whether it holds a sum or a product up to a symbol: its values are at natural numbers."""
    from sympy import Product, Sum

    return any(part.free_symbols for part in expression.atoms(Sum, Product))


def _point(numerator: int, index: int, denominator: int) -> Any:
    """A rational number of no special value, another for every symbol."""
    from sympy import Rational

    return Rational(numerator + (7 if numerator > 0 else -7) * index, denominator)


def _near(first: Any, second: Any, *, real: bool) -> bool | None:  # noqa: PLR0911 - cases
    """Whether two constants agree in 25 leading digits (True) or differ in the first 20 (False)."""
    from sympy import Rational

    try:
        first, second = first.doit(), second.doit()
        if first.is_Rational and second.is_Rational:
            return bool(first == second)
        one, other = first.evalf(40), second.evalf(40)
        difference = abs(one - other)
        if not (one.is_number and other.is_number and difference.is_finite):
            return None
        if real and not (one.is_real and other.is_real):
            return None
        size = max(abs(one), abs(other))
        if size < _SMALLEST:  # perhaps what rounding left of nothing: it has to be shown
            return bool((first - second).equals(0))
        if difference > size * Rational(1, 10**20):
            return False
        return True if difference < size * Rational(1, 10**25) else None
    except (ArithmeticError, AttributeError, TypeError, ValueError):
        return None  # not defined for these values: nothing is shown


def _as_fraction(match: re.Match[str]) -> str:
    whole, decimals = match[1], match[2]
    return f"{{\\frac{{{int((whole or '0') + decimals)}}}{{{10 ** len(decimals)}}}}}"

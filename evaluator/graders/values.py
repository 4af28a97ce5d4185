r"""Whether two expressions are equal, by their values: exactly where they are rational, else to 60
digits, at fixed points for their symbols. No symbolic algebra; every step is bounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

import mpmath  # type: ignore[import-untyped]

from evaluator.graders.expressions import Tree

MAX_BITS = 200_000  # of an exact number
MAX_EXPONENT_BITS = 100_000  # of the size of an inexact one
MAX_FACTORIAL = 3000
DIGITS = 100
MORE_DIGITS = 400  # tell a tiny value, which they leave as it is, from the rounding of nothing
SPARE_DIGITS = 30  # lost to rounding
_SAME = mpmath.mpf(10) ** -70
_DIFFERENT = mpmath.mpf(10) ** -60

# Values for symbols, of no special form: a row is a point, and symbols take its entries in turn.
# What differs at a positive point differs; equality has to hold at negative ones too.
_POINTS: tuple[tuple[int, ...], ...] = (
    (29, 36, 43, 50, 57, 64, 70, 78, 85, 93), (53, 17, 71, 38, 26, 91, 46, 61, 11, 79),
    (12, 103, 47, 5, 83, 31, 66, 23, 97, 55), (-37, -44, -51, -58, -65, -72, -80, -87, -94, -101),
    (-113, -19, -62, -7, -88, -29, -45, -73, -15, -59),
)  # fmt: skip
# Where a factorial or a binomial coefficient of a symbol has values: odd and even ones, and neither
# always larger than its neighbour.
_NATURAL_POINTS: tuple[tuple[int, ...], ...] = (
    (12, 5, 17, 9, 14, 3, 20, 8, 11, 6), (7, 11, 4, 16, 6, 19, 2, 13, 10, 15),
    (9, 4, 13, 2, 18, 7, 10, 5, 16, 3), (16, 10, 3, 21, 5, 12, 8, 18, 2, 14),
    (5, 8, 20, 12, 9, 2, 15, 4, 7, 19),
)  # fmt: skip
_DENOMINATOR = 41
_OF_ANGLES = frozenset(["sin", "cos", "tan", "cot", "sec", "csc"])
_FAMILIAR_ANGLES = 12  # multiples of a twelfth of pi
_INFINITY = "\\infty"

Value = Any  # Fraction | mpf | mpc


class Point(dict[str, Fraction]):
    """Values for symbols. Where ``real``, all has to stay real: the root of -2 has no value."""

    def __init__(
        self,
        names: Sequence[str],
        numbers: Sequence[int],
        *,
        real: bool,
        denominator: int = _DENOMINATOR,
    ) -> None:
        super().__init__(
            (name, Fraction(number, denominator))
            for name, number in zip(names, numbers, strict=False)
        )
        self.real = real


class UndefinedError(ArithmeticError):
    """The expression has no value here."""


class HugeError(ArithmeticError):
    """A value is too large to be worked with."""


def compare(one: Tree, other: Tree) -> bool | None:
    """Whether two expressions are equal; None where values do not tell. Symmetric."""
    if one == other:
        return True
    names = sorted(symbols(one) | symbols(other))
    if len(names) > len(_POINTS[0]) or _INFINITY in names:
        return None  # infinity is no number: it is the same only where it is spelled the same
    real = bool(names) and not _holds("i", one) and not _holds("i", other)
    agreed, lopsided = 0, False
    for point in _points(names, (one, other), real=real):
        try:
            first, second = _value_at(one, point), _value_at(other, point)
            if first is None or second is None:
                lopsided |= first is not second
                continue
            same = _near((one, first), (other, second), point)
        except HugeError:
            return False  # spelled the same or not shown to be the same
        if same is False:
            return False
        agreed += same is True
    if lopsided and _holds("abs", one) != _holds("abs", other):
        return False  # ln|x| has values where ln x has none, and says so
    return True if agreed >= (2 if names else 1) else None


def _points(names: Sequence[str], trees: Sequence[Tree], *, real: bool) -> list[Point]:
    """Where to compare: natural numbers if that is where a factorial has values."""
    if not names:
        return [Point((), (), real=real)]
    if any(_counts(tree) for tree in trees):
        return [Point(names, row, real=real, denominator=1) for row in _NATURAL_POINTS]
    return [Point(names, row, real=real) for row in _POINTS]


def _counts(tree: Tree) -> bool:
    """Whether a factorial or a binomial coefficient of a symbol stands in a tree."""
    own = tree[0] in ("factorial", "binomial") and bool(symbols(tree))
    return own or any(map(_counts, _parts(tree)))


def proportional(one: tuple[Tree, Tree], other: tuple[Tree, Tree]) -> bool | None:
    """Whether two equations, as pairs of sides, are multiples of each other. Symmetric.

    None where values do not tell.
    """
    first, second = _difference(one), _difference(other)
    names = sorted(symbols(first) | symbols(second))
    if not names or len(names) > len(_POINTS[0]):
        return None
    ratio: tuple[Value, Value] | None = None
    agreed = 0
    for numbers in _POINTS:
        point = Point(names, numbers, real=True)
        try:
            a, b = evaluate(first, point), evaluate(second, point)
        except (UndefinedError, HugeError):
            continue
        if _is_nothing(first, a, point) or _is_nothing(second, b, point):
            return None
        if ratio is None:
            ratio = (a, b)
            continue
        if not _close(_times(ratio[0], b), _times(ratio[1], a)):
            return False
        agreed += 1
    return True if agreed >= 2 else None


def constant(tree: Tree) -> Value | None:
    """The value of an expression without symbols (Fraction, mpf or mpc), or None."""
    if symbols(tree):
        return None
    try:
        return evaluate(tree, Point((), (), real=False))
    except (UndefinedError, HugeError):
        return None


def leaves_undone(tree: Tree) -> bool:
    """Whether a trigonometric function of a number, not of a familiar angle, is left to compute."""
    if tree[0] == "call" and tree[1] in _OF_ANGLES:
        angle = constant(tree[2])
        if angle is not None and not isinstance(angle, mpmath.mpc):
            with mpmath.workdps(DIGITS):
                steps = _inexact(angle) * _FAMILIAR_ANGLES / mpmath.pi
                return bool(abs(steps - mpmath.nint(steps)) > _DIFFERENT)
    return any(leaves_undone(part) for part in _parts(tree))


def _parts(tree: Tree) -> Iterator[Tree]:
    """The trees directly inside a tree."""
    for part in tree[1:]:
        if isinstance(part, tuple) and part:
            yield from part if isinstance(part[0], tuple) else (part,)


def _difference(sides: tuple[Tree, Tree]) -> Tree:
    return ("sum", (sides[0], ("negative", sides[1])))


def _value_at(tree: Tree, point: Point) -> Value | None:
    """The value at a point; None where it has none there."""
    try:
        return evaluate(tree, point)
    except UndefinedError:
        return None


def _near(one: tuple[Tree, Value], other: tuple[Tree, Value], point: Point) -> bool | None:
    """Whether two trees, given with their values at a point, have the same one there."""
    if isinstance(one[1], Fraction) and isinstance(other[1], Fraction):
        return bool(one[1] == other[1])
    nothing = _is_nothing(*one, point), _is_nothing(*other, point)
    if any(nothing):
        return all(nothing)
    same = _close(one[1], other[1])
    if same and not point:  # one pair of numbers is all the evidence: take more of their digits
        first, second = (evaluate(tree, point, MORE_DIGITS) for tree, _ in (one, other))
        return _close(first, second, MORE_DIGITS)
    return same


def _is_nothing(tree: Tree, value: Value, point: Point) -> bool:
    """Whether a tree's value is 0. What only rounding keeps from it shrinks as digits are added."""
    if isinstance(value, Fraction) or value == 0 or abs(value) > _DIFFERENT:
        return bool(value == 0)
    return bool(abs(evaluate(tree, point, MORE_DIGITS)) < abs(value) * _SAME)


def _close(first: Value, second: Value, digits: int = DIGITS) -> bool | None:
    """Whether two values, neither of them 0 but for rounding, agree in their leading digits."""
    if isinstance(first, Fraction) and isinstance(second, Fraction):
        return first == second
    with mpmath.workdps(digits):
        one, other = _inexact(first), _inexact(second)
        difference = abs(one - other)
        size = max(abs(one), abs(other))
        if not mpmath.isfinite(difference):
            return None
        if difference <= size * mpmath.mpf(10) ** (SPARE_DIGITS - digits):
            return True
        return False if difference > size * mpmath.mpf(10) ** (SPARE_DIGITS + 10 - digits) else None


@lru_cache(maxsize=4096)
def symbols(tree: Tree) -> frozenset[str]:
    """Names in a tree that need a value."""
    if tree[0] == "symbol":
        return frozenset([tree[1]])
    if tree[0] == "digits":
        return frozenset([_digits_name(tree)])
    return frozenset().union(*map(symbols, _parts(tree)))


def _holds(name: str, tree: Tree) -> bool:
    """Whether a constant or a function stands in a tree."""
    found = tree[0] in ("constant", "call") and tree[1] == name
    return found or any(_holds(name, part) for part in _parts(tree))


def _digits_name(tree: Tree) -> str:
    """A numeral in a base is a thing of its own: 204_5 equals neither 204 nor 54."""
    return f"{tree[1]}_{tree[2]}"


def _inexact(value: Value) -> Any:
    if isinstance(value, Fraction):
        return mpmath.mpf(value.numerator) / value.denominator
    return value


def evaluate(tree: Tree, point: Point, digits: int = DIGITS) -> Value:
    """The value of a tree, worked out with so many digits; raises UndefinedError or HugeError."""
    with mpmath.workdps(digits):
        try:
            return _value(tree, point)
        except OverflowError as error:
            raise HugeError(str(error)) from error
        except (ZeroDivisionError, ValueError) as error:  # mpmath's words for no value
            raise UndefinedError(str(error)) from error


def _value(tree: Tree, point: Point) -> Value:
    value = _plain_value(tree, point)
    if point.real and isinstance(value, mpmath.mpc):
        raise UndefinedError("not a real number")
    return value


def _plain_value(tree: Tree, point: Point) -> Value:  # noqa: PLR0911 - a list of cases
    kind = tree[0]
    if kind == "number":
        return tree[1]
    if kind == "symbol":
        return point[tree[1]]
    if kind == "digits":
        return point[_digits_name(tree)]
    if kind == "constant":
        return _CONSTANTS[tree[1]]()
    if kind in ("sum", "product"):
        combine = _plus if kind == "sum" else _times
        result = _value(tree[1][0], point)
        for part in tree[1][1:]:
            result = combine(result, _value(part, point))
        return result
    if kind == "call":
        return _FUNCTIONS[tree[1]](_value(tree[2], point))
    if kind == "log":
        logarithm = _logarithm(_value(tree[2], point))
        if tree[1] is None:  # the natural one, as in the mathematics of universities
            return logarithm
        return _divided(logarithm, _logarithm(_value(tree[1], point)))
    return _OPERATIONS[kind](*(_value(part, point) for part in tree[1:]))


def _checked(value: Value) -> Value:
    if isinstance(value, Fraction):
        if value.numerator.bit_length() + value.denominator.bit_length() > MAX_BITS:
            raise HugeError("a number has too many digits")
    elif value != 0 and abs(mpmath.mag(value)) > MAX_EXPONENT_BITS:
        raise HugeError("a number is too large or too small")
    return value


def _plus(one: Value, other: Value) -> Value:
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return _checked(one + other)
    return _inexact(one) + _inexact(other)


def _times(one: Value, other: Value) -> Value:
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return _checked(one * other)
    return _checked(_inexact(one) * _inexact(other))


def _divided(one: Value, other: Value) -> Value:
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return _checked(one / other)
    divisor = _inexact(other)
    if abs(divisor) <= _SAME:
        raise UndefinedError("division by nothing")
    return _checked(_inexact(one) / divisor)


def _negative(value: Value) -> Value:
    return -value


def _power(base: Value, exponent: Value) -> Value:
    if isinstance(exponent, Fraction):
        if isinstance(base, Fraction) and exponent.denominator == 1:
            return _integer_power(base, exponent.numerator)
        negative = not isinstance(base, mpmath.mpc) and base < 0
        if negative and exponent.denominator % 2 and exponent.denominator > 1:
            root = _power(-base, exponent)  # of an odd degree: the real one
            return -root if exponent.numerator % 2 else root
    if base == 0:
        if isinstance(exponent, mpmath.mpc) or exponent <= 0:
            raise UndefinedError("a power of nothing")
        return Fraction(0)
    one, other = _inexact(base), _inexact(exponent)
    if abs(other) * (abs(mpmath.mag(one)) + 1) > MAX_EXPONENT_BITS:
        raise HugeError("a power is too large")
    return _checked(mpmath.power(one, other))


def _integer_power(base: Fraction, exponent: int) -> Fraction:
    if base == 0 and exponent <= 0:
        raise UndefinedError("a power of nothing")
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if bits > 1 and bits * abs(exponent) > MAX_BITS:
        raise HugeError("a power has too many digits")
    if bits <= 1:  # 0, 1 and -1
        return base if exponent % 2 else base * base
    return base**exponent


def _root(degree: Value, value: Value) -> Value:
    if not isinstance(degree, Fraction) or degree == 0:
        raise UndefinedError("a root of no rational degree")
    if isinstance(value, Fraction) and value >= 0 and degree.denominator == 1 and degree <= 64:
        exact = _exact_root(value, degree.numerator)
        if exact is not None:
            return exact
    return _power(value, 1 / degree)


def _exact_root(value: Fraction, degree: int) -> Fraction | None:
    if degree != 2:
        return None
    top, bottom = math.isqrt(value.numerator), math.isqrt(value.denominator)
    if top * top == value.numerator and bottom * bottom == value.denominator:
        return Fraction(top, bottom)
    return None


def _factorial(value: Value) -> Fraction:
    if not isinstance(value, Fraction) or value.denominator != 1 or value < 0:
        raise UndefinedError("a factorial of no natural number")
    if value > MAX_FACTORIAL:
        raise HugeError("a factorial is too large")
    return Fraction(math.factorial(value.numerator))


def _binomial(n: Value, k: Value) -> Fraction:
    for value in (n, k):
        if not isinstance(value, Fraction) or value.denominator != 1 or value < 0:
            raise UndefinedError("a binomial coefficient of no natural numbers")
        if value > MAX_FACTORIAL:
            raise HugeError("a binomial coefficient is too large")
    return Fraction(math.comb(n.numerator, k.numerator))


def _logarithm(value: Value) -> Value:
    if value == 0:
        raise UndefinedError("the logarithm of nothing")
    if value == 1:
        return Fraction(0)
    return mpmath.log(_inexact(value))


def _rounded(function: Callable[[Any], Any]) -> Callable[[Value], Fraction]:
    def apply(value: Value) -> Fraction:
        if isinstance(value, mpmath.mpc):
            raise UndefinedError("the floor of a complex number")
        if not isinstance(value, Fraction):
            nearest = mpmath.nint(value)
            if abs(value - nearest) < _DIFFERENT * (abs(value) + 1):
                return Fraction(int(nearest))
        return Fraction(int(function(value)))

    return apply


def _with(function: Callable[[Any], Any]) -> Callable[[Value], Value]:
    """A function of a real or complex number whose argument and value are of a bounded size."""

    def apply(value: Value) -> Value:
        argument = _inexact(value)
        if argument != 0 and mpmath.mag(argument) > 16 + DIGITS:
            raise HugeError("the argument of a function is too large")
        return _checked(function(argument))

    return apply


def _exponential(value: Value) -> Value:
    return _power(mpmath.e + 0, value)


def _magnitude(value: Value) -> Value:
    return abs(value)


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "pi": lambda: +mpmath.pi,
    "e": lambda: +mpmath.e,
    "i": lambda: mpmath.mpc(0, 1),
    "degree": lambda: mpmath.pi / 180,
}
_OPERATIONS: dict[str, Callable[..., Value]] = {
    "negative": _negative,
    "quotient": _divided,
    "power": _power,
    "root": _root,
    "factorial": _factorial,
    "binomial": _binomial,
}
_FUNCTIONS: dict[str, Callable[[Value], Value]] = {
    "ln": _logarithm,
    "exp": _exponential,
    "abs": _magnitude,
    "floor": _rounded(math.floor),
    "ceil": _rounded(math.ceil),
    **{
        ours: _with(getattr(mpmath, theirs))
        for ours, theirs in {
            "sin": "sin", "cos": "cos", "tan": "tan", "cot": "cot", "sec": "sec", "csc": "csc",
            "arcsin": "asin", "arccos": "acos", "arctan": "atan",
            "sinh": "sinh", "cosh": "cosh", "tanh": "tanh", "coth": "coth",
        }.items()
    },
}  # fmt: skip

"""Mathematical answers, as MATH's: equivalence by exact numbers, by structure, by values.

``equal_fast`` decides numbers, spellings, expressions (``values.py``) and sequences of these, all
in bounded time; ``equal_slow`` asks math-verify about what is left (``symbolic.py``). Sequences are
compared here, member by member, because brackets, order and missing members matter.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction

import mpmath  # type: ignore[import-untyped]

from evaluator.errors import UndecidedError
from evaluator.graders import values
from evaluator.graders.base import Grader
from evaluator.graders.expressions import Tree, UnreadableError, read
from evaluator.graders.extraction import read_answer
from evaluator.graders.forms import same_form
from evaluator.graders.normalise import (
    Number,
    clean,
    left_side,
    parse_number,
)
from evaluator.graders.structure import (
    Sequence,
    intervals,
    ordered_match,
    parse,
    split,
    unordered_match,
)
from evaluator.graders.units import units_conflict, without_unit_of
from evaluator.graders.words import plain
from evaluator.protocol import GradingPolicy

MAX_COMPARED_CHARACTERS = 5000  # longer answers are the same only word for word
MAX_EVALUATED_CHARACTERS = 1000  # longer answers are compared as text only
MAX_SLOW_CHARACTERS = 300  # of what is handed to the slow way
ROUNDING_DECIMALS = 2  # fewest digits after the point that count as a rounding
MAX_STEPS = 6  # of a computation that is written down with its result
MAX_SOLVED_SYMBOLS = 2  # equations in more are compared as multiples of each other only

Evaluate = Callable[[str, str], bool | None]

# Towers and factorials that would fill the memory; the slow way never sees them.
_HUGE = re.compile(
    r"\^\{?-?\d{4,}|\d\}?\^\{?\(?-?\d+\}?\^|\^\{?\d{3,}\}?\)+\}?\^\{?\d{3,}"
    r"|\d{4,}\)?\}?!|!!|\\uparrow|\d{400}"
)
_MEMBER_OF = re.compile(r"^\\?[a-zA-Z]+(?:_\{\w+\})?\s*\\in(?![a-zA-Z])\s*")
_BUILDER = re.compile(
    r"(?P<slash>\\)?\{(?P<name>[a-zA-Z])(?:\s*\\in\s*\\mathbb\{?R\}?)?\s*(?:\||:|\\mid(?![a-zA-Z])|\\vert(?![a-zA-Z]))\s*"
    r"(?P<condition>[^|]*[<>=][^|]*|[^|]*\\(?:leq|geq|neq)[^|]*)(?(slash)\\)\}"
)
_POINT = re.compile(r"^[A-Z](?=\([^()]*,[^()]*\)$)")
_NAMED_TUPLE = re.compile(r"\((?P<names>[a-zA-Z](?:,[a-zA-Z])+)\)=\((?P<members>.*)\)")
_GROUPED = re.compile(r"-?[1-9]\d{0,2}(?:(?:,\d{3})+|(?: \d{3})+)(?:\.\d+)?")
_LABEL = re.compile(r"[A-Z]{2,}")  # of points, or an order: no product
_NAME_LAST = re.compile(r"^(?P<value>[^=]+)=[a-zA-Z]$")
_WORDS = re.compile(r"[A-Za-z]{4,}|[A-Za-z]{2,}(?:[ -][A-Za-z]+)+|(?i:yes|no|odd|all)")
_SET_AS_TEXT = re.compile(
    r"[\s$]*\\(?:text(?:bf|it|rm|normal)?|mbox)\{(?!.*\b(?:and|or)\b)[A-Za-z][A-Za-z .'-]+\}[\s$.]*"
)
_SPACE = re.compile(r"(?<!\d) | (?!\d)")  # not the one of 2 1/2
_ABSENT = frozenset(["None", "null", "nan", "NaN"])  # what a program writes for no answer
_DECIMAL_COMMA = re.compile(r"-?\d+,\d+")
_RELATION = re.compile(r"[<>]|\\(?:leq|geq|neq)(?![a-zA-Z])")
# What the slow way may be asked about: the rest is mathematics that values decide, or none.
_SLOW = re.compile(
    r"[<>=]|\\(?:leq|geq|neq|in|cup|cap|setminus|mathbb|emptyset|infty|begin|int|sum|prod|lim|binom"
    r"|det|gcd|lcm|max|min|pm|mp)(?![a-zA-Z])"
)
_EVALUATED_AS_SET = re.compile(
    r"[<>]|\\(?:leq|geq|neq|begin|mathbb|emptyset|setminus|infty|cap)(?![a-zA-Z])"
)


class MathGrader(Grader):
    """Compares as mathematics. Symmetric and total; bounded by the pool that calls it."""

    name = "math"
    version = 4

    def read(self, prediction: str, policy: GradingPolicy) -> str:
        """The answer in a text that was given as one: out of its box or its sentence."""
        return read_answer(prediction, policy)

    def equal_fast(self, first: str, second: str, policy: GradingPolicy) -> bool | None:
        """Whether both are the same, if spelling, numbers, structure and values tell; else None."""
        return _equal(first, second, policy, lambda one, other: None)

    def equal_slow(self, first: str, second: str, policy: GradingPolicy) -> bool:
        """Whether both are the same, by symbolic algebra where nothing else tells.

        Raises UndecidedError where a pair of members could not be compared and none of the others
        showed that the answers are the same.
        """
        from evaluator.graders import symbolic

        failures: list[str] = []

        def evaluate(one: str, other: str) -> bool:
            try:
                return symbolic.equal(one, other)
            except UndecidedError as failure:
                failures.append(str(failure))
                return False

        verdict = bool(_equal(first, second, policy, evaluate))
        if failures and not verdict:
            raise UndecidedError(failures[0])
        return verdict


def _equal(  # noqa: PLR0911 - a list of cases
    first: str, second: str, policy: GradingPolicy, evaluate: Evaluate
) -> bool | None:
    first, second = read_answer(first, policy), read_answer(second, policy)
    if first in _ABSENT or second in _ABSENT:
        return False
    if max(len(first), len(second)) > MAX_COMPARED_CHARACTERS:
        return bool(first.strip()) and first.split() == second.split()
    one, other = clean(first), clean(second)
    if not one.text or not other.text:
        return False
    texts = plain(one.text), plain(other.text)
    if any(
        _SET_AS_TEXT.fullmatch(answer) and cleaned.text == text
        for answer, cleaned, text in zip((first, second), (one, other), texts, strict=True)
    ):  # words, not products
        return _SPACE.sub("", texts[0]).casefold() == _SPACE.sub("", texts[1]).casefold()
    if policy.units and units_conflict(one.unit, other.unit):
        return False
    if not policy.units and one.unit != other.unit:
        return False
    if policy.units:
        texts = without_unit_of(other.unit, texts[0]), without_unit_of(one.unit, texts[1])
    return _same(*texts, policy, evaluate)


def _same(one: str, other: str, policy: GradingPolicy, evaluate: Evaluate) -> bool | None:
    """Compare cleaned answers, or members of their sequences."""
    one, other = plain(one), plain(other)
    verdict = _same_text(one, other, policy)
    if verdict is not None:
        return verdict
    one, other = _without_names(one, other)
    verdict = _same_text(one, other, policy)
    if verdict is not None:
        return verdict
    left, right = parse(one), parse(other)
    if not (isinstance(left, Sequence) and isinstance(right, Sequence)):
        # Beside what is no list, 1,000,000 is a number.
        one, other = _without_separators(one), _without_separators(other)
        left, right = parse(one), parse(other)
    if isinstance(left, Sequence) or isinstance(right, Sequence):
        return _same_sequences(left, right, (one, other), policy, evaluate)
    verdict = _same_text(left, right, policy)
    if verdict is not None:
        return verdict
    if any(kind.fullmatch(side) for kind in (_WORDS, _LABEL) for side in (left, right)):
        return False
    return _same_values(left, right, policy, evaluate)


def _same_values(  # noqa: PLR0911 - a list of cases
    one: str, other: str, policy: GradingPolicy, evaluate: Evaluate
) -> bool | None:
    """Compare two single expressions, equations or relations."""
    if max(len(one), len(other)) > MAX_EVALUATED_CHARACTERS:
        return False
    if "=" in one or "=" in other:
        return _same_equations(one, other, policy, evaluate)
    try:
        first, second = read(one), read(other)
    except UnreadableError:
        return False  # a fragment, or no mathematics: the same only word for word
    if first is None or second is None:
        return _ask(one, other, evaluate)
    if values.leaves_undone(first) != values.leaves_undone(second):
        return False  # sin 18° for a number: the computation that was asked for is left undone
    if values.compare(first, second):
        return True
    return policy.rounding and (_shows(one, second) or _shows(other, first))


def _same_equations(one: str, other: str, policy: GradingPolicy, evaluate: Evaluate) -> bool | None:
    """Compare where at least one side is an equation: an equation is never its side."""
    sides = split(one, "equals"), split(other, "equals")
    if any(_RELATION.search(text) for text in (one, other)):
        return _ask(one, other, evaluate)
    if len(sides[0]) != len(sides[1]):
        return False
    try:
        trees = [[read(side) for side in part] for part in sides]
    except UnreadableError:
        return False
    if len(sides[0]) != 2 or any(tree is None for part in trees for tree in part):
        return _ask(one, other, evaluate)
    first, second = ((part[0], part[1]) for part in trees)
    verdict = values.proportional(first, second)  # type: ignore[arg-type]
    if verdict:
        return True
    names = values.symbols(("sum", (*first, *second)))
    return _ask(one, other, evaluate) if 0 < len(names) <= MAX_SOLVED_SYMBOLS else False


def _ask(one: str, other: str, evaluate: Evaluate) -> bool | None:
    """Leave it to the slow way, if it is small enough and of the kind that it knows."""
    if max(len(one), len(other)) > MAX_SLOW_CHARACTERS:
        return False
    if not all(_balanced(text) and not _HUGE.search(text) for text in (one, other)):
        return False
    if not (_SLOW.search(one) or _SLOW.search(other)):
        return False
    return evaluate(one, other)


def _balanced(text: str) -> bool:
    """Whether there is a text, its braces are closed and nothing is cut off at its end."""
    level = 0
    for token in re.findall(r"\\.|[{}]", text):
        level += {"{": 1, "}": -1}.get(token, 0)
        if level < 0:
            return False
    return level == 0 and text != "" and text[-1] not in "^_+-*/\\"


def _same_text(one: str, other: str, policy: GradingPolicy) -> bool | None:
    """Compare spellings and exact numbers; None where they do not tell."""
    if _spelling(one) == _spelling(other):
        return True
    first, second = parse_number(one), parse_number(other)
    if first is not None and second is not None:
        return _same_number(first, second, policy)
    if _same_decimal_comma(one, second) or _same_decimal_comma(other, first):
        return True
    return same_form(one, other)


def _same_decimal_comma(text: str, number: Number | None) -> bool:
    """Whether a text is a decimal, its point written as a comma. Beside a list it is a list.

    Beside a fraction, only 0,75 is no list.
    """
    if number is None or not _DECIMAL_COMMA.fullmatch(text):
        return False
    if number.decimals is None and (
        number.value.denominator == 1 or not text.lstrip("-").startswith("0,")
    ):
        return False
    decimal = parse_number(text.replace(",", "."))
    return decimal is not None and decimal.value == number.value and not number.percent


def _spelling(text: str) -> str:
    """Text answers are the same whatever their case; symbols are not."""
    words = _WORDS.fullmatch(text.strip())
    joined = _SPACE.sub("", text)
    return joined.casefold() if words else joined.removeprefix("+")


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


def _shows(text: str, exact: Tree) -> bool:
    """Whether ``text`` is a decimal rounding of an expression's value."""
    number = parse_number(text)
    if number is None or number.decimals is None or number.decimals < ROUNDING_DECIMALS:
        return False
    value = values.constant(exact)
    if value is None or isinstance(value, mpmath.mpc):
        return False
    if isinstance(value, Fraction):
        return _rounds_to(Number(value), number)
    with mpmath.workdps(values.DIGITS):
        decimal = mpmath.mpf(number.value.numerator) / number.value.denominator
        return bool(2 * abs(value - decimal) * 10**number.decimals <= 1)


def _without_names(one: str, other: str) -> tuple[str, str]:
    r"""Take off ``x=``, ``f(x)=``, ``x \in`` and ``=x`` where the other answer lacks the name."""
    if "=" in one and "=" in other:
        one, other = _spread(one), _spread(other)
    one, other = _as_intervals(_without_variable(one), _without_variable(other))
    if other.startswith("(") or one.startswith("("):  # A(1,2)
        one, other = (_POINT.sub("", text) for text in (one, other))
    names = left_side(one), left_side(other)
    if names[0] is not None and names[0] == names[1]:
        return _without_name(one), _without_name(other)
    sides = split(one, "equals"), split(other, "equals")
    if len(sides[0]) == len(sides[1]) == 2 and sides[0][0] == sides[1][0]:
        return sides[0][1], sides[1][1]
    return (
        _without_name(one) if len(sides[1]) == 1 else one,
        _without_name(other) if len(sides[0]) == 1 else other,
    )


def _without_separators(text: str) -> str:
    return re.sub("[, ]", "", text) if _GROUPED.fullmatch(text) else text


def _without_variable(text: str) -> str:
    r"""The set of ``x \in A``, the condition of ``\{x \mid x>2\}``."""
    text = _MEMBER_OF.sub("", text)
    builder = _BUILDER.fullmatch(text)
    return builder["condition"] if builder else text


def _as_intervals(one: str, other: str) -> tuple[str, str]:
    """Conditions on one name as intervals, unless the names differ."""
    first, second = intervals(one), intervals(other)
    if first is not None and second is not None and first[0] != second[0]:
        return one, other
    return first[1] if first else one, second[1] if second else other


def _spread(text: str) -> str:
    """``(a,b)=(1,2)`` as ``a=1,b=2``."""
    match = _NAMED_TUPLE.fullmatch(text)
    if match is None:
        return text
    names, members = match["names"].split(","), split(match["members"], "comma")
    if len(names) != len(members):
        return text
    return ",".join(f"{name}={member}" for name, member in zip(names, members, strict=True))


def _without_name(text: str) -> str:
    """The value of an assignment or of a chain of equalities; other equations stay as they are."""
    name = left_side(text)
    last = _NAME_LAST.match(text)
    if name is None and last is None:
        return _computed(text)
    if name is not None:
        rest = text[len(name) + 1 :]
        if not isinstance(parse(rest), Sequence):
            return next(reversed(split(rest, "equals")), text)
        return text if "=" in rest else rest  # x=4, y=5 keeps its names
    return last["value"] if last else text


def _computed(text: str) -> str:
    """The result of ``2+3=5``: a computation that holds, from one number to another form of it."""
    sides = split(text, "equals")
    if not 1 < len(sides) <= MAX_STEPS:
        return text
    try:
        trees = [read(side) for side in sides]
    except UnreadableError:
        return text
    first = trees[0]
    if first is None or trees[-1] == first or values.symbols(first):
        return text
    holds = all(tree is not None and values.compare(first, tree) for tree in trees[1:])
    return sides[-1] if holds else text


def _same_sequences(  # noqa: PLR0911, PLR0912 - a list of cases
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
        if sequence.holds_one:
            return same(sequence.members[0], single)
        if _EVALUATED_AS_SET.search(single):
            return _ask(*texts, evaluate)
        return False
    if left.holds_one and texts[1][:1] in ("(", "["):
        return same(left.members[0], texts[1])
    if right.holds_one and texts[0][:1] in ("(", "["):
        return same(texts[0], right.members[0])
    if left.kind == right.kind and left.kind in ("ordered", "matrix"):
        if left.brackets != right.brackets:
            return False
        return ordered_match(left.members, right.members, same)
    if left.is_unordered and right.is_unordered:
        if left.is_named != right.is_named:  # x=4, y=5 says which is which
            return ordered_match(left.by_name, right.by_name, same)
        return unordered_match(left.members, right.members, same)
    if "union" in (left.kind, right.kind):
        if left.kind == right.kind and unordered_match(left.members, right.members, same):
            return True
        return _ask(*texts, evaluate)
    if {left.kind, right.kind} == {"ordered", "matrix"} and "()" in (left.brackets, right.brackets):
        shape = left.brackets if left.kind == "matrix" else right.brackets
        return "1" in shape.split("x") and ordered_match(left.members, right.members, same)
    if {left.kind, right.kind} == {"ordered", "list"} and "()" in (left.brackets, right.brackets):
        return ordered_match(left.by_name, right.by_name, same)
    return False

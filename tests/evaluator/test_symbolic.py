"""Who is to blame when a comparison fails: the answers, the room they were given, or the grader."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import math_verify
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluator import graders
from evaluator.errors import GraderError, UndecidedError
from evaluator.graders import symbolic, worker
from evaluator.graders.pool import GradeRequest, GraderPool
from evaluator.graders.words import plain
from evaluator.protocol import GradingPolicy, Thinking
from evaluator.records import Outcome

POLICY = GradingPolicy()
INEQUALITIES = ("x^2+y<1", "x^2+y<2")  # only the library compares them


@pytest.fixture(scope="module")
def pool() -> Iterator[GraderPool]:
    with GraderPool(jobs=2, cpu_seconds=2.0) as started:
        yield started


def _request(gold: str, prediction: str) -> GradeRequest:
    return GradeRequest("math", gold, Thinking(kind="none"), POLICY, prediction=prediction)


def _failing(error: Exception) -> Any:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("function", ["parse", "verify"])
@pytest.mark.parametrize("error", [TypeError("no order"), KeyError("x"), AssertionError()])
def test_a_failure_in_the_library_shows_nothing_and_says_so(
    monkeypatch: pytest.MonkeyPatch, function: str, error: Exception
) -> None:
    monkeypatch.setattr(math_verify, function, _failing(error))
    with pytest.raises(UndecidedError, match=type(error).__name__):
        symbolic.equal(*INEQUALITIES)
    request = {"kind": "math", "first": INEQUALITIES[0], "second": INEQUALITIES[1]}
    answer = worker._compare({**request, "policy": POLICY.model_dump()}, 60.0)
    assert answer["equal"] is False
    assert type(error).__name__ in answer["undecided"]


def test_a_member_that_cannot_be_compared_spoils_no_other_pairing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def equal(one: str, other: str) -> bool:
        if ("y" in one) != ("y" in other):
            raise UndecidedError("comparing failed")
        return True

    monkeypatch.setattr(symbolic, "equal", equal)
    grader = graders.get("math")
    assert grader.equal_slow("x^2+a<1, y^2+a<1", "2y^2+2a<2, 2x^2+2a<2", POLICY)
    with pytest.raises(UndecidedError):
        grader.equal_slow("x^2+a<1, x^2+a<2", "2y^2+2a<2, 3y^2+3a<9", POLICY)


@pytest.mark.parametrize("error", [MemoryError(), RecursionError()])
def test_a_comparison_without_room_is_told_apart(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(math_verify, "verify", _failing(error))
    with pytest.raises(GraderError, match="room"):
        symbolic.equal(*INEQUALITIES)


def test_a_fault_of_the_grader_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graders.get("math"), "equal_slow", _failing(KeyError("lost")), raising=True)
    request = {"kind": "math", "first": "a", "second": "b", "policy": POLICY.model_dump()}
    answer = worker._compare(request, 60.0)
    assert "equal" not in answer
    assert "KeyError" in answer["fault"]
    monkeypatch.setattr("evaluator.graders.pool._Worker._read", lambda *_: answer)
    with GraderPool(jobs=1) as pool:
        [verdict] = pool.grade([_request(*INEQUALITIES)])
    assert verdict.outcome is Outcome.GRADER_ERROR
    assert verdict.reason is not None
    assert "KeyError" in verdict.reason


pieces = st.lists(
    st.sampled_from(
        ["<", "\\leq ", "=", "\\in ", "\\cup ", "\\cap ", "\\sum_{k=1}^{n}", "\\int_0^1 ", "\\lim ",
         "\\binom", "\\begin{pmatrix}", "\\end{pmatrix}", "\\mathbb{R}", "\\emptyset", "\\infty",
         "\\{", "\\}", "{", "}", "(", ")", "[", "]", ",", "|", "&", "\\\\", "x", "k", "1", "0",
         "2.5", "^", "_", "-", "/", "\\frac", "\\sqrt", "\\det ", "\\max ", "dx", "!", "\\pmod ",
         "\\begin{cases}", "\\end{cases}", "\\pm ", "\\neq ", "\\setminus ", "\\mid "]
    ),
    min_size=1,
    max_size=9,
).map("".join)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(pieces, st.sampled_from(["x<1", "\\{1,2\\}", "\\sum_{k=1}^{n} k", "(0,\\infty)", "x+y=1"]))
def test_no_prediction_makes_the_grader_fail(pool: GraderPool, text: str, gold: str) -> None:
    verdicts = list(pool.grade([_request(gold, text), _request(text, gold)]))
    assert verdicts[0].outcome is verdicts[1].outcome
    assert verdicts[0].outcome in (Outcome.CORRECT, Outcome.WRONG)


ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def _spelled(number: int, *, link: str) -> str:
    """A number below a million, as people say it."""
    if number >= 1000:
        rest = f" {_spelled(number % 1000, link=link)}" if number % 1000 else ""
        return f"{_spelled(number // 1000, link=link)} thousand{rest}"
    if number >= 100:
        rest = f" {link}{_spelled(number % 100, link=link)}" if number % 100 else ""
        return f"{ONES[number // 100]} hundred{rest}"
    if number < 20:
        return ONES[number]
    return TENS[number // 10 - 2] + (f"-{ONES[number % 10]}" if number % 10 else "")


@given(st.integers(0, 999_999), st.sampled_from(["", "and "]))
def test_numbers_in_words_are_read_back(number: int, link: str) -> None:
    words = _spelled(number, link=link)
    assert plain(words) == plain(words.capitalize()) == str(number)
    assert plain(f"minus {words}") == f"-{number}"
    assert plain(f"{words} {words}") == f"{words} {words}"
    assert plain(f"{words} apples") == f"{words} apples"


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_small_values_are_told_apart_from_each_other_and_from_nothing(one: int, other: int) -> None:
    """Nothing is equal for being small: a fixed tolerance would call all of these 0."""
    grader = graders.get("math")
    for form in (
        "e^{{-{0}}}",
        "\\frac{{1}}{{e^{{{0}}}}}",
        "10^{{-{0}}}\\sqrt{{2}}",
        "\\pi^{{-{0}}}",
    ):
        text = form.format(one)
        assert grader.equal_fast(text, form.format(other), POLICY) is (one == other)
        assert grader.equal_fast(text, "0", POLICY) is False
    assert grader.equal_fast("\\sqrt{6}-\\sqrt{2}\\sqrt{3}", "0", POLICY) is True

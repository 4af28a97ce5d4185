"""Countdown: every problem can be solved, and only what solves it is right."""

from __future__ import annotations

import itertools
import re
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluator.benchmarks.countdown import generate
from evaluator.errors import InputError
from evaluator.graders import get
from evaluator.protocol import GradingPolicy

Term = tuple[Fraction, str]


def _right(gold: str, answer: str) -> bool:
    verdicts = {
        get("countdown").equal_fast(*pair, GradingPolicy())
        for pair in ((gold, answer), (answer, gold))
    }
    assert len(verdicts) == 1, "symmetric"
    return verdicts == {True}


def _solve(terms: list[Term], target: int) -> str | None:
    """An expression of all the terms that is worth the target, by trying them all."""
    if len(terms) == 1:
        return terms[0][1] if terms[0][0] == target else None
    for one, other in itertools.permutations(range(len(terms)), 2):
        rest = [term for index, term in enumerate(terms) if index not in (one, other)]
        (a, left), (b, right) = terms[one], terms[other]
        joined = [(a + b, "+"), (a - b, "-"), (a * b, "*")] + ([(a / b, "/")] if b else [])
        for value, sign in joined:
            if found := _solve([*rest, (value, f"({left}{sign}{right})")], target):
                return found
    return None


@pytest.mark.parametrize("numbers", [2, 3, 4])
def test_every_problem_has_a_solution_and_the_grader_takes_it(numbers: int) -> None:
    for problem in generate(25, seed=3, numbers=numbers):
        target, _, listed = problem.answer.partition(" from ")
        given = [int(number) for number in listed.split(", ")]
        assert len(given) == numbers
        found = _solve([(Fraction(number), str(number)) for number in given], int(target))
        assert found is not None, problem
        assert _right(problem.answer, found)
        assert _right(problem.answer, f"{found} = {target}")
        assert not _right(problem.answer, f"{found}+0")
        assert not _right(problem.answer, f"{found}*{given[0]}/{given[0]}")
        assert not _right(problem.answer, target)
        assert all(number in problem.problem for number in (target, *listed.split(", ")))


def test_problems_depend_on_seed_and_size_alone() -> None:
    problems = generate(300, seed=1)
    assert generate(20, seed=1) == problems[:20]
    assert generate(20, seed=2) != problems[:20]
    assert len({problem.id for problem in problems}) == 300


@pytest.mark.parametrize(
    "answer",
    ["8/(3-8/3)", r"\frac{8}{3-\frac{8}{3}}", r"8 \div (3 - 8 \div 3) = 24", "8 ÷ (3 − 8 ÷ 3)",
     r"$8 / \left(3 - 8/3\right)$"],
)  # fmt: skip
def test_solutions_are_right_however_they_are_written(answer: str) -> None:
    assert _right("24 from 3, 3, 8, 8", answer)


@pytest.mark.parametrize(
    "answer",
    ["8/(3-8/3) = 25", "8*3", "3*8*3/3", "8/(3-8/3", "8/(3-8/3))", "", "24", "8//(3-8/3)",
     "8/(3-3)*8/3", "8**3", "__import__('os')", "8.0/(3-8/3)", "(" * 299, "-" * 290 + "1",
     "8/(3-8/3)" + " " * 400, "٨/(3-8/3)", "8/(3-8/3) 3", "83/(3-8)", "24 from 3, 8, 8"],
)  # fmt: skip
def test_what_is_no_solution_is_wrong(answer: str) -> None:
    assert not _right("24 from 3, 3, 8, 8", answer)


@settings(max_examples=300)
@given(st.text(alphabet="0123456789+-*/()= \\frac{}", max_size=60))
def test_any_text_is_decided_and_right_only_if_it_reaches_the_target(text: str) -> None:
    verdict = get("countdown").equal_fast("24 from 3, 3, 8, 8", text, GradingPolicy())
    assert verdict is not None, "undecided"
    if verdict:
        assert sorted(re.findall(r"\d+", text.partition("=")[0])) == ["3", "3", "8", "8"]


@pytest.mark.parametrize(
    ("count", "numbers", "field"), [(0, 4, "count"), (1, 1, "numbers"), (1, 9, "numbers"),
                                    (10**6, 2, "count")],
)  # fmt: skip
def test_what_cannot_be_made_is_refused(count: int, numbers: int, field: str) -> None:
    with pytest.raises(InputError, match=f"^{field}:"):
        generate(count, seed=0, numbers=numbers)

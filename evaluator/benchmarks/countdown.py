"""Countdown: reach a number with some numbers, each used once, and the four operations.

Source: made here, so there is no data set and no revision; seed, count and size are the version.
Every problem has a solution, because its target is the value of an expression over its numbers.
Metric: pass@1 and pass@k by the countdown grader, which evaluates what is written, exactly. How we
know that the number is right: a brute-force search over all expressions finds a solution of every
problem, the grader accepts it, and it refuses each one with a number left out or used twice.
"""

from __future__ import annotations

import random

from evaluator.benchmarks.spec import BenchmarkSpec
from evaluator.errors import InputError
from evaluator.records import Problem

SMALLEST, LARGEST = 1, 99  # the numbers given
TARGET_LIMIT = 999
MIN_NUMBERS, MAX_NUMBERS = 2, 8
_TRIES = 1000  # draws for one new problem before the set is said to be exhausted

SPEC = BenchmarkSpec(
    name="countdown",
    title="Countdown",
    grader="countdown",
    prompt=(
        "{problem}\n\nPlease reason step by step, and put the expression alone within \\boxed{}."
    ),
    hub=None,
    problem_count=None,
)


def generate(count: int, *, seed: int, numbers: int = 4) -> list[Problem]:
    """Draw ``count`` different problems of so many ``numbers``.

    The same seed gives the same problems in the same order, and a smaller count gives the first of
    them. The reference answer reads ``24 from 3, 5, 7, 9``. Raises InputError for a count below 1,
    ``numbers`` outside 2 … 8, or more problems than can be found.
    """
    if not MIN_NUMBERS <= numbers <= MAX_NUMBERS:
        raise InputError(f"numbers: {numbers} is outside {MIN_NUMBERS} … {MAX_NUMBERS}.")
    if count < 1:
        raise InputError(f"count: {count} is below 1; give a larger one.")
    rng = random.Random(f"countdown/{numbers}/{seed}")
    problems: dict[str, Problem] = {}
    while len(problems) < count:
        for _ in range(_TRIES):
            problem = _draw(rng, numbers)
            if problem.id not in problems:
                break
        else:
            raise InputError(
                f"count: only {len(problems)} problems of {numbers} numbers were found; "
                "give a smaller count or more numbers."
            )
        problems[problem.id] = problem
    return list(problems.values())


def _draw(rng: random.Random, size: int) -> Problem:
    """One problem, its target found by joining the numbers two at a time."""
    while True:
        given = sorted(rng.randint(SMALLEST, LARGEST) for _ in range(size))
        left = list(given)
        while len(left) > 1:
            one, other = (left.pop(rng.randrange(len(left))) for _ in range(2))
            left.append(_join(rng, one, other))
        if 1 <= left[0] <= TARGET_LIMIT and left[0] not in given:
            break
    listed = ", ".join(map(str, given))
    return Problem(
        id=f"{left[0]}from{'_'.join(map(str, given))}",
        problem=(
            f"Using each of the numbers {listed} exactly once, with +, -, *, / and parentheses, "
            f"write an expression that equals {left[0]}."
        ),
        answer=f"{left[0]} from {listed}",
        level=str(size),
    )


def _join(rng: random.Random, one: int, other: int) -> int:
    """The value of a random operation on two numbers; a division only where it is exact."""
    sign = rng.choice("+-*/")
    if sign == "/" and other and one % other == 0:
        return one // other
    if sign == "*":
        return one * other
    return one + other if sign == "+" else one - other

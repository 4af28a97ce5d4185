"""Arithmetic: sums and differences of two or three numbers, made from a seed.

Source: made here, so there is no data set and no revision; the seed and the count are the version.
Metric: pass@1 and cons@k by the integer grader. The number is right when the reference answers
are: the tests evaluate every text anew. A one-million-parameter character-level model learns the
task within minutes, which is what the demonstration and the tests need.
"""

from __future__ import annotations

import random

from evaluator.benchmarks.spec import BenchmarkSpec
from evaluator.errors import InputError
from evaluator.records import Problem

OPERAND_LIMIT = 100  # operands lie in 0 … 99
MAX_TERMS = 3

SPEC = BenchmarkSpec(
    name="arithmetic",
    title="Arithmetic",
    grader="integer",
    prompt="{problem}",
    hub=None,
    problem_count=None,
)


def generate(count: int, *, seed: int, terms: int = MAX_TERMS) -> list[Problem]:
    """Draw ``count`` different problems such as ``12+7-30`` (or ``12+7`` with ``terms=2``).

    The same seed gives the same problems in the same order, and a smaller count gives the first of
    them. The id is the text in letters that any file name or address can carry: ``12p7m30``.
    Raises InputError for a count below 1 or above half of what exists, or another ``terms``.
    """
    if terms not in (2, MAX_TERMS):
        raise InputError(f"terms: {terms} is not possible; give 2 or {MAX_TERMS}.")
    available = OPERAND_LIMIT**terms * 2 ** (terms - 1)
    if not 1 <= count <= available // 2:
        raise InputError(
            f"count: {count} is outside 1 … {available // 2} (half of all {terms}-number "
            "problems); give a smaller one."
        )
    rng = random.Random(f"arithmetic/{terms}/{seed}")
    problems: dict[str, Problem] = {}
    while len(problems) < count:
        problem = _draw(rng, terms)
        problems.setdefault(problem.id, problem)
    return list(problems.values())


def _draw(rng: random.Random, terms: int) -> Problem:
    """One problem, evaluated from left to right."""
    total = rng.randrange(OPERAND_LIMIT)
    text = str(total)
    for _ in range(terms - 1):
        sign, operand = rng.choice("+-"), rng.randrange(OPERAND_LIMIT)
        text += f"{sign}{operand}"
        total += operand if sign == "+" else -operand
    return Problem(
        id=text.replace("+", "p").replace("-", "m"),
        problem=text,
        answer=str(total),
        level=str(terms),
    )

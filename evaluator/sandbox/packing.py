"""A problem's tests inside ``Problem.extra``: one form for all published ones, compressed.

Tests are large and are read by the judge alone, so that a problem carries them as one opaque text,
and only the few problems that are being judged lie unpacked in memory.
"""

from __future__ import annotations

import base64
import json
import zlib
from functools import lru_cache
from typing import Any

from evaluator.errors import InputError
from evaluator.records import Problem, canonical_json, content_hash
from evaluator.sandbox.checkers import CheckerProgram
from evaluator.sandbox.limits import MIB
from evaluator.sandbox.problems import JudgeProblem, from_row

EXTRA = "judge"  # the key in Problem.extra
_UNPACKED = 4  # problems kept unpacked: their tests may be tens of megabytes each


def to_row(problem: JudgeProblem) -> dict[str, Any]:
    """The row that :func:`from_row` reads as ``problem``, the same for every published form."""
    row: dict[str, Any] = {
        "id": problem.id,
        "time_limit": problem.cpu_seconds,
        "memory_limit": problem.memory_bytes / MIB,
        "input_mode": "file" if problem.file_mode else "stdio",
        "tests": [
            {"name": test.name, "input": test.input.decode(), "answer": test.answer.decode()}
            for test in problem.tests
        ],
    }
    if problem.tolerance is not None:
        bounds = problem.tolerance
        row["checker_flags"] = (
            f"float_absolute_tolerance {bounds.absolute!r} "
            f"float_relative_tolerance {bounds.relative!r}"
        )
    for name, program in (
        ("checker_program", problem.checker),
        ("interactor", problem.interactor),
    ):
        if program is not None:
            row[name] = _program(program)
    return row


def _program(program: CheckerProgram) -> dict[str, str]:
    return {
        "language": program.language,
        "source": program.source,
        "convention": program.convention,
    }


def reference(problem: JudgeProblem) -> str:
    """What stands in the place of a reference answer: the number of tests and their SHA-256.

    The hash is over everything that a verdict depends on, the id left out, so that a problem's
    content hash changes with its tests, limits and checker.
    """
    row = to_row(problem)
    del row["id"]
    count = len(problem.tests)
    return f"{count} test{'' if count == 1 else 's'}, sha256 {content_hash(row)}"


def pack(problem: JudgeProblem) -> str:
    """``problem`` as a text for ``Problem.extra``."""
    return base64.b85encode(zlib.compress(canonical_json(to_row(problem)).encode(), 6)).decode()


def unpack(packed: str) -> JudgeProblem:
    """The problem that :func:`pack` was given; raises InputError for any other text."""
    try:
        row = json.loads(zlib.decompress(base64.b85decode(packed)))
    except (ValueError, zlib.error):
        raise InputError(
            f"extra.{EXTRA}: it is no packed tests; import the problems again."
        ) from None
    return from_row(row)


def judge_problem(problem: Problem) -> JudgeProblem:
    """The tests that ``problem`` carries; raises InputError where it carries none."""
    packed = problem.extra.get(EXTRA)
    if not isinstance(packed, str):
        raise InputError(
            f"problems: {problem.id!r} carries no tests to judge programs by; "
            "import the benchmark again from its file."
        )
    return _unpacked(packed)


_unpacked = lru_cache(maxsize=_UNPACKED)(unpack)

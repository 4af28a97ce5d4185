"""Problems with tests, from the forms in which they are published."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from evaluator.errors import InputError
from evaluator.sandbox.checkers import CheckerProgram, Tolerance
from evaluator.sandbox.limits import DEFAULT_CPU_SECONDS, DEFAULT_MEMORY_BYTES, MIB

_MAX_CPU_SECONDS = 3600.0
_MAX_MEMORY_BYTES = 64 << 30
_KATTIS_FLAGS = {
    "float_absolute_tolerance": ("absolute",),
    "float_relative_tolerance": ("relative",),
    "float_tolerance": ("absolute", "relative"),
}

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class JudgeTest:
    """An input and the jury's answer to it."""

    name: str
    input: bytes
    answer: bytes


@dataclass(frozen=True, slots=True)
class JudgeProblem:
    """What a program is judged against. At most one of tolerance, checker and interactor."""

    id: str
    tests: tuple[JudgeTest, ...]
    cpu_seconds: float = DEFAULT_CPU_SECONDS
    memory_bytes: int = DEFAULT_MEMORY_BYTES
    tolerance: Tolerance | None = None
    checker: CheckerProgram | None = None
    interactor: CheckerProgram | None = None
    file_mode: bool = False  # reads input.txt and writes output.txt


def find(
    path: Path,
    problem_id: str,
    *,
    checker: CheckerProgram | None = None,
    interactor: CheckerProgram | None = None,
) -> JudgeProblem:
    """Read the problem called ``problem_id`` from a .jsonl or .jsonl.gz file.

    ``checker`` and ``interactor`` stand in for the row's own. Raises InputError where the file
    cannot be read, has no such problem, or its row lacks something.
    """
    seen: list[str] = []
    for number, row in _rows(path):
        if str(row.get("id")) == problem_id:
            try:
                return from_row(row, checker=checker, interactor=interactor)
            except InputError as error:
                raise InputError(f"{path.name}, line {number}: {error}") from None
        seen.append(str(row.get("id")))
    some = ", ".join(seen[:5]) or "none at all"
    raise InputError(f"id: {path.name} has no problem {problem_id!r}; it has {some} …")


def _rows(path: Path) -> Iterator[tuple[int, Row]]:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise InputError(f"{path.name}, line {number}: not a JSON object.")
                yield number, row
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        raise InputError(f"problems: {path} cannot be read as JSON lines ({error}).") from None


def from_row(
    row: Row,
    *,
    checker: CheckerProgram | None = None,
    interactor: CheckerProgram | None = None,
) -> JudgeProblem:
    """Build a problem from a row of any known form; raises InputError naming the field.

    Known are the hub's open-r1/codeforces (``official_tests``), ICPC packages (``tests`` with
    ``checker`` and ``checker_flags``) and lists of ``inputs`` and ``outputs``. Any of them may
    have ``time_limit`` (seconds), ``memory_limit`` (MB of 2^20 bytes), ``checker_program`` and
    ``interactor`` ({language, source}).
    """
    if not isinstance(row.get("id"), str | int):
        raise InputError("id: missing; every problem needs one.")
    kind = row.get("checker")
    checker = checker or _program(row, "checker_program") or _generated(row)
    interactor = interactor or _program(row, "interactor")
    tolerance = None
    if interactor is not None:
        checker = None
    elif kind == "interactive" or row.get("interaction_format"):
        raise InputError(
            "interactor: the problem is interactive; give its interactor (--interactor FILE)."
        )
    elif checker is None:
        if kind == "custom":
            raise InputError(
                "checker_program: the problem has a custom checker; give it (--checker FILE)."
            )
        if kind not in (None, "diff", "exact", "float"):
            raise InputError(f"checker: {kind!r} is not exact, float, custom or interactive.")
        tolerance = _tolerance(row.get("checker_flags"), needed=kind == "float")
    return JudgeProblem(
        id=str(row["id"]),
        tests=_tests(row),
        cpu_seconds=_number(row, "time_limit", DEFAULT_CPU_SECONDS, _MAX_CPU_SECONDS),
        memory_bytes=_memory(row),
        tolerance=tolerance,
        checker=checker,
        interactor=interactor,
        file_mode=_file_mode(row),
    )


def _file_mode(row: Row) -> bool:
    mode = row.get("input_mode") or "stdio"
    if mode not in ("stdio", "file"):
        raise InputError(f"input_mode: {mode!r} is neither stdio nor file.")
    return bool(mode == "file")


def _tests(row: Row) -> tuple[JudgeTest, ...]:
    if "official_tests" in row:
        name, pairs = "official_tests", _pairs(row, "official_tests", "output")
    elif "tests" in row:
        name, pairs = "tests", _pairs(row, "tests", "answer")
    else:
        name, pairs = "inputs", _columns(row)
    if not pairs:
        raise InputError(f"{name}: there is no test; a program cannot be judged.")
    return tuple(
        JudgeTest(label, given.encode(), answer.encode()) for label, given, answer in pairs
    )


def _pairs(row: Row, field: str, answer: str) -> list[tuple[str, str, str]]:
    tests = row.get(field) or []
    if not isinstance(tests, list):
        raise InputError(f"{field}: must be a list of tests.")
    found = []
    for number, test in enumerate(tests, start=1):
        texts = [test.get(key) for key in ("input", answer)] if isinstance(test, dict) else []
        if len(texts) != 2 or not all(isinstance(text, str) for text in texts):
            raise InputError(f"{field}: test {number} lacks the text input or {answer}.")
        found.append((str(test.get("name") or number), str(texts[0]), str(texts[1])))
    return found


def _columns(row: Row) -> list[tuple[str, str, str]]:
    inputs, outputs = row.get("inputs"), row.get("outputs")
    if not isinstance(inputs, list) or not isinstance(outputs, list):
        raise InputError(
            "tests: missing; a row needs official_tests, tests, or inputs and outputs."
        )
    if len(inputs) != len(outputs) or not all(isinstance(x, str) for x in [*inputs, *outputs]):
        raise InputError("outputs: must be as many texts as there are inputs.")
    return [
        (str(number), given, answer)
        for number, (given, answer) in enumerate(zip(inputs, outputs, strict=True), start=1)
    ]


def _number(row: Row, field: str, default: float, most: float) -> float:
    value = row.get(field)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{field}: must be a number.")
    if not 0 < value <= most:
        raise InputError(f"{field}: {value} is not above 0 and at most {most:g}.")
    return float(value)


def _memory(row: Row) -> int:
    default = DEFAULT_MEMORY_BYTES / MIB
    described = row.get("problem_yaml")
    if isinstance(described, str):  # an ICPC package's own limits
        try:
            limits = (yaml.safe_load(described) or {}).get("limits")
        except (yaml.YAMLError, AttributeError):
            raise InputError("problem_yaml: not a YAML mapping.") from None
        if isinstance(limits, dict) and limits.get("memory") is not None:
            default = _number(limits, "memory", default, _MAX_MEMORY_BYTES / MIB)
    return int(_number(row, "memory_limit", default, _MAX_MEMORY_BYTES / MIB) * MIB)


def _tolerance(flags: Any, *, needed: bool) -> Tolerance | None:
    """Kattis' validator flags: a tolerance's name and its number, or ``case_sensitive``."""
    if not isinstance(flags, str | None):
        raise InputError("checker_flags: must be a text.")
    words = iter((flags or "").split())
    found: dict[str, float] = {}
    for name in words:
        if name == "case_sensitive":  # tokens are compared so in any case
            continue
        if name not in _KATTIS_FLAGS:
            known = ", ".join((*_KATTIS_FLAGS, "case_sensitive"))
            raise InputError(f"checker_flags: {name!r} is not known; known: {known}.")
        value = next(words, "")
        try:
            found |= dict.fromkeys(_KATTIS_FLAGS[name], float(value))
        except ValueError:
            raise InputError(f"checker_flags: {value!r} after {name} is no number.") from None
    if any(not 0 <= value < math.inf for value in found.values()):
        raise InputError("checker_flags: a tolerance must be finite and not below 0.")
    if needed and not found:
        raise InputError("checker_flags: a float checker needs float_tolerance or the like.")
    return Tolerance(**found) if found else None


def _program(row: Row, field: str) -> CheckerProgram | None:
    value = row.get(field)
    if value is None:
        return None
    if not isinstance(value, dict) or not all(
        isinstance(value.get(key), str) for key in ("language", "source")
    ):
        raise InputError(f"{field}: must be an object with the texts language and source.")
    convention = value.get("convention", "testlib")
    if convention not in ("testlib", "hub"):
        raise InputError(f"{field}: convention {convention!r} is neither testlib nor hub.")
    return CheckerProgram(value["language"], value["source"], convention)


def _generated(row: Row) -> CheckerProgram | None:
    source = row.get("generated_checker")
    if source is None or source == "":
        return None
    if not isinstance(source, str):
        raise InputError("generated_checker: must be a Python program's text.")
    return CheckerProgram("python", source, "hub")

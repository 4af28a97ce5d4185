"""``judge``: the verdict on a program, as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evaluator.commands.console import CPUS
from evaluator.errors import InputError
from evaluator.sandbox import languages
from evaluator.sandbox.checkers import CheckerProgram
from evaluator.sandbox.judge import judge as judge_program
from evaluator.sandbox.languages import LANGUAGES
from evaluator.sandbox.problems import find
from evaluator.terminal import json_line

_SUFFIXES = {".cpp": "cpp", ".cc": "cpp", ".cxx": "cpp", ".py": "python"}


def judge(
    *,
    problems: Annotated[
        Path,
        typer.Option(help="JSONL or JSONL.gz: open-r1/codeforces, ICPC tests, or inputs/outputs."),
    ],
    problem_id: Annotated[str, typer.Option("--id", help="Which problem of the file.")],
    language: Annotated[str, typer.Option(help=f"One of: {', '.join(LANGUAGES)}.")],
    source: Annotated[Path, typer.Option(help="The program's source.")],
    checker: Annotated[
        Path | None,
        typer.Option(help="Checker (.cpp, .py), called with input, output, answer; exit 0 or 1."),
    ] = None,
    interactor: Annotated[
        Path | None, typer.Option(help="Interactor (.cpp, .py), called as testlib's are.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Tests at a time.")] = CPUS,
    all_tests: Annotated[
        bool, typer.Option("--all-tests", help="Go on after the first failure.")
    ] = False,
) -> None:
    """Judge a program in the sandbox and print the verdict with every test's time and memory."""
    languages.get(language)
    problem = find(
        problems,
        problem_id,
        checker=_helper("checker", checker),
        interactor=_helper("interactor", interactor),
    )
    result = judge_program(
        problem,
        language,
        _read("source", source),
        jobs=jobs,
        stop_at_first_failure=not all_tests,
    )
    print(json_line(result.to_json()))


def _helper(field: str, path: Path | None) -> CheckerProgram | None:
    if path is None:
        return None
    if path.suffix not in _SUFFIXES:
        raise InputError(f"{field}: {path.name} must end in one of {', '.join(_SUFFIXES)}.")
    return CheckerProgram(_SUFFIXES[path.suffix], _read(field, path))


def _read(field: str, path: Path) -> str:
    try:
        return path.read_text("utf-8", "surrogateescape")
    except OSError as error:
        raise InputError(f"{field}: {path} cannot be read ({error.strerror}).") from None

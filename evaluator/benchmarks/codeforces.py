"""Codeforces: programs for contest problems, judged by running them on tests.

Source: ``open-r1/codeforces`` on the hub (https://huggingface.co/datasets/open-r1/codeforces, CC BY
4.0), its JSONL or Parquet files as they are; ICPC packages as rows of ``tests``; lists of
``inputs`` and ``outputs``; or the problems of contest bundles (``evaluator.contests``). There is no
download: a set is chosen by contests, and its content hash is its version. Metric: pass@1 over
problems, a pass being AC on every test (PROTOCOLS §4), and a rating where contest bundles say who
took part (docs/codeforces.md). There is no vote among programs: cons@k is blank. How we know that
the number is right: programs of known verdict pass and fail as they must
(tests/evaluator/sandbox/test_programs.py), and the rating of a run equals one that is counted by
hand (tests/evaluator/test_codeforces.py).

Rows that nobody can judge, or answer, are left out and told: interactive problems without an
interactor, custom checkers that are not in the row, the hub's rows without tests or a statement.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from evaluator.benchmarks.spec import BenchmarkSpec
from evaluator.contests import Contest
from evaluator.errors import InputError
from evaluator.records import Problem
from evaluator.sandbox import packing
from evaluator.sandbox.problems import from_row

NAME = "codeforces"
PROMPT = (
    "Write a program that solves the following problem of a programming contest. It is judged on "
    "hidden tests, each of which must be passed within the limits of time and memory: choose an "
    "algorithm that is fast enough for the largest input that the statement allows.\n\n{problem}"
    "\n\nThink it through first. Then give the whole program, in C++17 or Python 3, in one fenced "
    "code block that begins with ```cpp or ```python."
)
_LIMITS = "Time limit: {seconds:g} s of CPU time. Memory limit: {mebibytes:g} MiB.{files}"
_FILES = " Read the input from input.txt and write the output to output.txt."
_SECTIONS = (  # field of the hub's row, heading
    ("input_format", "Input"),
    ("output_format", "Output"),
    ("interaction_format", "Interaction"),
)

Row = Mapping[str, Any]


def left_out(row: Row) -> str | None:
    """Why nobody can judge this row's problem; None where it can be judged."""
    if packing.EXTRA in (row.get("extra") or {}):
        return None
    interactive = row.get("checker") == "interactive" or bool(row.get("interaction_format"))
    if interactive and not row.get("interactor"):
        return "interactive, without an interactor"
    if row.get("checker") == "custom" and not row.get("checker_program"):
        return "with a custom checker that is not in the row"
    if "official_tests" in row and not row["official_tests"]:
        return "without tests"
    if "official_tests" in row and row.get("description") in (None, ""):
        return "without a statement"  # on the site it is a picture
    return None


def problem(row: Row) -> Problem:
    """A problem from a row of any known form; raises InputError naming the field."""
    if packing.EXTRA in (row.get("extra") or {}):
        return _own(row)
    try:
        judged = from_row(row)
        answer, packed = packing.reference(judged), packing.pack(judged)
    except UnicodeEncodeError:
        raise InputError("tests: one holds half a character; save the file as UTF-8.") from None
    rating = row.get("rating")  # the problem's own, in Elo points
    if isinstance(rating, float) and not rating.is_integer():
        rating = None  # nan, where the file has gaps
    return Problem(
        id=judged.id,
        problem=statement(
            row,
            seconds=judged.cpu_seconds,
            mebibytes=judged.memory_bytes / (1 << 20),
            file_mode=judged.file_mode,
        ),
        answer=answer,
        level=str(int(rating)) if isinstance(rating, int | float) else None,
        extra={packing.EXTRA: packed},
    )


def _own(row: Row) -> Problem:
    """A problem as this library writes it; what it says of its tests must be true."""
    try:
        found = Problem.from_json(row)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{error}: missing or malformed; import the published row.") from None
    if found.answer != packing.reference(packing.judge_problem(found)):
        raise InputError("answer: it is not the hash of the tests; import the published row.")
    return found


def statement(row: Row, *, seconds: float, mebibytes: float, file_mode: bool) -> str:
    """The problem as a model reads it: title, limits, text, input and output, examples, note.

    Raises InputError where the row has no text.
    """
    limits = _LIMITS.format(seconds=seconds, mebibytes=mebibytes, files=_FILES if file_mode else "")
    parts = [f"# {title}" if (title := _text(row, "title")) else "", limits, _body(row)]
    parts += [f"## {name}\n\n{text}" for key, name in _SECTIONS if (text := _text(row, key))]
    parts += _examples(row)
    if note := _text(row, "note"):
        parts.append(f"## Note\n\n{note}")
    return "\n\n".join(part for part in parts if part)


def _body(row: Row) -> str:
    given = row.get("statements")
    if isinstance(given, list):  # an ICPC package's, one for each language
        texts = {
            str(each.get("file")): str(each.get("text") or "").strip()
            for each in given
            if isinstance(each, dict)
        }
        english = next((text for name, text in texts.items() if ".en." in name and text), "")
        found = english or next((text for text in texts.values() if text), "")
    else:
        found = _text(row, "description") or _text(row, "statement")
    if not found:
        raise InputError(
            "description: missing or blank; give a field called description, statement or "
            "statements."
        )
    return found


def _examples(row: Row) -> list[str]:
    examples = row.get("examples")
    if examples is None:
        return []
    if not isinstance(examples, list) or not all(
        isinstance(each, dict)
        and all(isinstance(each.get(key), str) for key in ("input", "output"))
        for each in examples
    ):
        raise InputError("examples: give a list of objects with the texts input and output.")
    many = len(examples) > 1
    return [
        f"## Example{f' {number}' if many else ''}\n\n"
        f"Input:\n```\n{each['input'].rstrip()}\n```\n\n"
        f"Output:\n```\n{each['output'].rstrip()}\n```"
        for number, each in enumerate(examples, start=1)
    ]


def _text(row: Row, field: str) -> str:
    value = row.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(f"{field}: {type(value).__name__} where text is needed; give text.")
    return value.replace("\r\n", "\n").strip()


def of_contests(contests: Sequence[Contest]) -> list[Problem]:
    """The problems that contest bundles hold with their tests, each once, in the bundles' order.

    A problem that two divisions share is the same problem. Raises InputError, naming contest and
    problem, for a row that cannot be used, and where no bundle holds a problem.
    """
    found: dict[str, Problem] = {}
    for contest in contests:
        for each in contest.problems:
            if each.problem is None:
                continue
            try:
                if left_out(each.problem) is None:
                    made = problem(each.problem)
                    found.setdefault(made.id, made)
            except InputError as error:
                raise InputError(f"contest {contest.id}, problem {each.index}: {error}") from None
    if not found:
        raise InputError(
            "contests: no bundle holds a problem with tests; give --problems, or make bundles "
            "with import-contest --problems."
        )
    return list(found.values())


def ids_in(contest: Contest, index: str, row_id: str | None) -> Iterable[str]:
    """The ids by which a contest's problem may stand in a benchmark, the likeliest first."""
    return tuple(name for name in (row_id, f"{contest.id}/{index}", f"{contest.id}{index}") if name)


SPEC = BenchmarkSpec(
    name=NAME,
    title="Codeforces",
    grader="code",
    prompt=PROMPT,
    hub=None,
    problem_count=None,
    problem=problem,
    left_out=left_out,
    repeats=True,  # two divisions share problems
)

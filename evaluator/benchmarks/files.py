"""Problems from a local file: JSON lines (also gzipped), Parquet or CSV.

The published forms of a data set differ in column names, number types and row numbers; what comes
out here is the same for all of them, and so is ``records.problems_hash``.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import logging
import math
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from evaluator import benchmarks
from evaluator.benchmarks.choice_order import LETTERS, letter_of
from evaluator.benchmarks.spec import Archive, BenchmarkSpec
from evaluator.errors import InputError
from evaluator.records import Problem, content_hash

# Column names that are known for each part of a problem; the first that a row has counts.
FIELDS: dict[str, tuple[str, ...]] = {
    "id": ("id", "unique_id", "problem_id"),
    "problem": ("problem", "question", "prompt"),
    "answer": ("answer",),
    "subject": ("subject", "type"),
    "level": ("level",),
}
MAX_ID_CHARACTERS = 200
MAX_ARCHIVE_BYTES = 64 << 20  # a zip may name any size

_PARQUET_ROWS = 64  # read at a time: a row with tests may be megabytes

_log = logging.getLogger(__name__)

Row = Mapping[str, Any]
Shown = Mapping[str, Sequence[tuple[str, ...]]]  # by problem: the orders in which options stood


def read_problems(path: Path, benchmark: str, shown: Shown | None = None) -> list[Problem]:
    """Read ``benchmark``'s problems from a .jsonl, .jsonl.gz, .parquet or .csv file, or from the
    encrypted .zip that the benchmark is published as.

    ``shown`` gives the options of problems whose rows have none: the orders in which they were
    shown. Rows that the benchmark leaves out are counted in a warning of the log. Raises
    InputError, naming line and field, for a row that is not a problem, an id or (but in a person's
    own set) a text that comes twice, and a file that cannot be read or holds no problem.
    """
    spec = benchmarks.get(benchmark)
    problems: list[Problem] = []
    lines: dict[str, int] = {}
    left_out: Counter[str] = Counter()
    for line, row in _rows(path, spec):
        if spec.left_out is not None and (reason := spec.left_out(row)) is not None:
            left_out[reason] += 1
            continue
        try:
            problem = to_problem(row, spec, shown)
        except InputError as error:
            raise InputError(f"{path.name}, line {line}: {error}") from None
        keys = [f"id {problem.id!r}"]
        if not spec.repeats:
            keys.append(f"text {problem.problem!r}")
        for key in keys:
            earlier = lines.setdefault(key, line)
            if earlier != line:
                what = key[:80] if not spec.private or key.startswith("id") else "its text"
                raise InputError(
                    f"{path.name}, line {line}: {what} stands on line {earlier} too; "
                    "leave one of them out."
                )
        problems.append(problem)
    told = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()))
    if not problems:
        why = f" ({told})" if told else ""
        raise InputError(f"{path.name}: it holds no problems{why}; give a file that does.")
    if told:
        _log.warning("%s: problems left out: %s.", path.name, told)
    return problems


def to_problem(row: Row, spec: BenchmarkSpec, shown: Shown | None = None) -> Problem:
    """Build a problem from a published row; raises InputError naming the field."""
    if spec.problem is not None and (problem := spec.problem(row)) is not None:
        return problem
    text = _text(row, "problem").replace("\r\n", "\n")
    answer = _text(row, "answer")
    if spec.answer is not None:
        try:
            answer = spec.answer(answer)
        except InputError as error:
            raise InputError(f"answer: {error}; give the number.") from None
    options = _options(row) if spec.grader == "choice" else ()
    if spec.grader == "integer":
        answer = _integer(answer)
    elif spec.grader == "choice":
        if not options and shown is not None:
            options = _shown_options(answer, shown.get(_optional(row, "id") or "", ()))
        answer = _letter(answer, options)
    identifier = (spec.identify and spec.identify(row)) or _optional(row, "id")
    if identifier is None:  # some sets have no ids: the content is what stays the same
        identifier = content_hash([text, answer, *options])[:16]
    if len(identifier) > MAX_ID_CHARACTERS:
        raise InputError(f"id: longer than {MAX_ID_CHARACTERS} characters; give a shorter one.")
    return Problem(
        id=identifier,
        problem=text,
        answer=answer,
        subject=_optional(row, "subject"),
        level=_optional(row, "level"),
        options=options,
    )


def _value(row: Row, part: str) -> Any:
    """A part of the row; None where it has none. Tables write a gap among numbers as NaN."""
    values = (row.get(name) for name in FIELDS[part])
    return next((each for each in values if each is not None and not _is_gap(each)), None)


def _is_gap(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _text(row: Row, part: str) -> str:
    """A part that must be there and not blank, as text."""
    value = _value(row, part)
    if isinstance(value, bool) or not isinstance(value, str | int | float | None):
        raise InputError(f"{part}: {type(value).__name__} where text is needed; give text.")
    text = "" if value is None else _plain(value, part)
    if not text:
        names = " or ".join(FIELDS[part])
        raise InputError(f"{part}: missing or blank; give a field called {names}.")
    return text


def _optional(row: Row, part: str) -> str | None:
    """A part that may be absent, as text."""
    value = _value(row, part)
    return None if value is None else (_plain(value, part) or None)


def _plain(value: object, part: str) -> str:
    """Text of a cell: 2 and 2.0 (an integer column with gaps) are both ``2``."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON can write one; no hash, file or database takes it
        raise InputError(f"{part}: it holds half a character; save the file as UTF-8.") from None
    return text


def _integer(answer: str) -> str:
    """``025`` and ``25`` are the same reference answer."""
    digits = answer.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        raise InputError(f"answer: {answer[:40]!r} is not an integer; give one.")
    digits = digits.lstrip("0") or "0"  # int() reads no more than some thousand digits
    return f"-{digits}" if answer.startswith("-") and digits != "0" else digits


def _options(row: Row) -> tuple[str, ...]:
    """A multiple-choice problem's options, in its own order; none where the row has none."""
    options = row.get("options")
    if options is None:
        return ()
    if not isinstance(options, list) or not all(isinstance(each, str) for each in options):
        raise InputError("options: not a list of texts; give the options' texts.")
    if len(options) > len(LETTERS):
        raise InputError(f"options: {len(options)} are more than {len(LETTERS)}; leave some out.")
    return tuple(_plain(each, "options") for each in options)


def _shown_options(answer: str, orders: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """A problem's options, known by the orders in which they were shown; none where by none.

    An answer that is one of the texts stands by itself, so the options' own order is the alphabet's
    (as GPQA's). A letter speaks of the order shown, if there is but one.
    """
    if not orders or any(sorted(order) != sorted(orders[0]) for order in orders):
        return ()  # what does not fit together is told with its line, as the completions are read
    if answer in orders[0]:
        return tuple(sorted(orders[0]))
    if len(orders) == 1:
        return orders[0]
    raise InputError(
        f"answer: the letter {answer[:9]!r} does not say which option, as they were shown in "
        "several orders; give the options of the problem, or the answer as a text."
    )


def _letter(answer: str, options: tuple[str, ...]) -> str:
    letter = letter_of(answer, options)
    if letter is None:
        raise InputError("answer: neither a letter of an option nor an option's text; give one.")
    return letter


def _rows(path: Path, spec: BenchmarkSpec) -> Iterator[tuple[int, Row]]:
    """Yield (line number, row), counted from 1; a CSV's heading is line 1, Parquet rows count."""
    name = path.name.lower()
    try:
        if name.endswith(".zip") and spec.archive is not None:
            text = _unlocked(path, spec.archive).decode("utf-8-sig")
            yield from _csv_rows(path, io.StringIO(text, newline=""))
            return
        if name.endswith((".jsonl", ".jsonl.gz")):
            yield from _json_rows(path)
        elif name.endswith(".csv"):
            with path.open(encoding="utf-8-sig", newline="") as file:
                yield from _csv_rows(path, file)
        elif name.endswith(".parquet"):
            yield from _parquet_rows(path)
        else:
            raise InputError(
                f"{path.name}: the kind of file is not known; "
                "give .jsonl, .jsonl.gz, .parquet or .csv."
            )
    except UnicodeDecodeError:
        raise InputError(f"{path.name}: it is not UTF-8 text; save it as UTF-8.") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path.name}: cannot be read ({reason}); check the file.") from None


def _json_rows(path: Path) -> Iterator[tuple[int, Row]]:
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8-sig", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):  # also a number of more digits than Python reads
                raise InputError(
                    f"{path.name}, line {number}: it is not JSON; give one object on each line."
                ) from None
            if not isinstance(row, dict):
                raise InputError(
                    f"{path.name}, line {number}: {type(row).__name__} where an object is needed; "
                    "give one object on each line."
                )
            yield number, row


def _csv_rows(path: Path, file: TextIO) -> Iterator[tuple[int, Row]]:
    reader = csv.DictReader(file, strict=True)
    try:
        for row in reader:
            if None in row or None in row.values():
                raise InputError(
                    f"{path.name}, line {reader.line_num}: it has more or fewer cells than "
                    "the heading; quote cells that hold commas."
                )
            yield reader.line_num, {key: value or None for key, value in row.items()}
    except csv.Error as error:
        raise InputError(
            f"{path.name}, line {reader.line_num}: it is not CSV ({error}); mend the line."
        ) from None


def _unlocked(path: Path, archive: Archive) -> bytes:
    """The table in an encrypted zip, decrypted in memory only."""
    password = os.environ.get(archive.password_variable)
    if not password:
        raise InputError(
            f"{path.name}: it is encrypted; put its password into the environment variable "
            f"{archive.password_variable}."
        )
    try:
        with (
            zipfile.ZipFile(path) as zipped,
            zipped.open(archive.member, pwd=password.encode()) as file,
        ):
            table = file.read(MAX_ARCHIVE_BYTES + 1)
    except KeyError:
        raise InputError(
            f"{path.name}: {archive.member} is not in it; get the official file."
        ) from (None)
    except (RuntimeError, zipfile.BadZipFile, zlib.error, NotImplementedError):
        raise InputError(
            f"{path.name}: it is damaged or the password in {archive.password_variable} is not "
            "its own; check both."
        ) from None
    if len(table) > MAX_ARCHIVE_BYTES:
        raise InputError(f"{path.name}: the table in it is too large; get the official file.")
    return table


def _parquet_rows(path: Path) -> Iterator[tuple[int, Row]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except pyarrow.ArrowException as error:
        reason = str(error).splitlines()[0][:120]
        raise InputError(f"{path.name}: it is not Parquet ({reason}); check the file.") from None

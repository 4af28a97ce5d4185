"""Traces and problems in files: JSON lines, plain or compressed. Memory does not grow with texts.

A file of traces is read twice: once to check every row and note where it stands, in a few numbers,
and once in the order of the problems. What cannot be read from its middle (gzip, zstandard) is laid
out flat in a folder first.
"""

from __future__ import annotations

import gzip
import json
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import zstandard
from numpy.typing import NDArray

from distiller.errors import InputError
from distiller.filters.base import JudgeVerdict, Key
from distiller.traces import is_text
from evaluator.engines.replay import read_completion
from evaluator.records import Completion, FinishReason, Problem

GUESS = "guess"  # the kind of a row that was answered without thinking
_CHUNK = 1 << 20


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(number from 1, line with its end) of a JSONL, .gz or .zst file, blank ones left out.

    Raises InputError for a file that cannot be read or is damaged.
    """
    try:
        with path.open("rb") as file:
            yield from (
                (n, line) for n, line in enumerate(_unpacked(path, file), 1) if line.strip()
            )
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path}: cannot be read ({reason}); give a JSONL file.") from error
    except (EOFError, zlib.error, zstandard.ZstdError) as error:
        raise InputError(f"{path.name}: damaged ({error}); copy or write it again.") from error


def _unpacked(path: Path, file: BinaryIO) -> Iterable[bytes]:
    if path.suffix == ".gz":
        return gzip.GzipFile(fileobj=file)
    return _zstandard_lines(file) if path.suffix == ".zst" else file


def _zstandard_lines(file: BinaryIO) -> Iterator[bytes]:
    frame = zstandard.ZstdDecompressor().decompressobj(read_across_frames=False)
    rest, data = b"", b""
    while data or (data := file.read(_CHUNK)):
        if frame.eof:  # one more frame
            frame = zstandard.ZstdDecompressor().decompressobj()
        *whole, rest = (rest + frame.decompress(data)).split(b"\n")
        yield from (line + b"\n" for line in whole)
        data = frame.unused_data
    if not frame.eof:
        raise EOFError("it ends in the middle")
    if rest:
        yield rest


def _row(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not a JSON value ({error}); mend or remove it.") from error
    if not isinstance(row, dict):
        raise InputError(f"{where}: not a JSON object; give one with the fields by name.")
    return row


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where it stands, row) of each row; raises InputError naming file and line."""
    for number, line in lines(path):
        where = f"{path.name}, line {number}"
        yield where, _row(line, where)


def read_problems(path: Path) -> list[Problem]:
    """Problems ``{id, problem, answer}`` of a file; raises InputError naming line and field."""
    problems: dict[str, Problem] = {}
    for where, row in _rows(path):
        for name in ("id", "problem", "answer"):
            value = row.get(name)
            if name == "answer" and "answer" in row and value is None:
                row["answer"] = ""  # nothing that a rule could compare
            elif isinstance(value, bool) or not isinstance(value, str | int | float):
                raise InputError(f"{where}: {name} must be a text or a number.")
            else:
                row[name] = str(value)
        if not is_text(row["id"], row["problem"], row["answer"]):
            raise InputError(f"{where}: it holds half a character (a lone surrogate); mend it.")
        if not row["id"] or not row["problem"].strip():
            raise InputError(f"{where}: id and problem must not be empty.")
        if row["id"] in problems:
            raise InputError(
                f"{where}: the id {row['id']!r} stands there a second time; rename it."
            )
        try:
            problems[row["id"]] = Problem.from_json(row)
        except (TypeError, ValueError) as error:
            raise InputError(f"{where}: not a problem ({error}).") from error
    if not problems:
        raise InputError(f"{path.name}: it holds no problems; give a file that does.")
    return list(problems.values())


def read_guesses(path: Path) -> dict[str, list[Completion]]:
    """Answers given without thinking, by problem id: rows ``{problem_id, sample, completion}``."""
    guesses: dict[str, list[Completion]] = {}
    for where, row in _rows(path):
        guess = read_completion(row, where, {})
        guesses.setdefault(guess.problem_id, []).append(guess)
    return guesses


def read_judged(path: Path) -> dict[Key, JudgeVerdict]:
    """A judge's verdicts: rows ``{problem_id, sample, judge}`` of ``python -m distiller judge``."""
    judged: dict[Key, JudgeVerdict] = {}
    for where, row in _rows(path):
        verdict, sample = row.get("judge"), row.get("sample")
        if verdict not in ("correct", "wrong", "unsure"):
            raise InputError(f"{where}: judge must be correct, wrong or unsure.")
        if isinstance(sample, bool) or not isinstance(sample, int) or "problem_id" not in row:
            raise InputError(f"{where}: problem_id and a whole sample are needed.")
        judged[str(row["problem_id"]), sample] = verdict
    return judged


@dataclass(frozen=True, slots=True)
class Place:
    """Where a trace stands: file, byte offset, bytes, and its sample's number."""

    path: Path
    offset: int
    length: int
    sample: int
    repeated: bool  # an earlier row has the same problem and sample

    def read(self, file: BinaryIO) -> Completion:
        """The completion in the row, from its open file."""
        file.seek(self.offset)
        return _completion(json.loads(file.read(self.length)), "", {}, self.sample)


def _completion(
    row: Mapping[str, Any], where: str, following: Mapping[str, int], sample: int | None = None
) -> Completion:
    completion = read_completion(row, where, following)
    error = row.get("error")
    if error is None and completion.finish_reason == FinishReason.ERROR:
        error = "the engine failed"
    if error is not None or sample is not None:
        chosen = completion.sample if sample is None else sample
        return replace(completion, error=None if error is None else str(error), sample=chosen)
    return completion


@dataclass(slots=True)
class TraceIndex:
    """Where every trace of some files stands; 30 bytes a trace."""

    paths: list[Path] = field(default_factory=list)
    guesses: dict[str, list[Completion]] = field(default_factory=dict)
    _file: array[int] = field(default_factory=lambda: array("i"))
    _offset: array[int] = field(default_factory=lambda: array("q"))
    _length: array[int] = field(default_factory=lambda: array("i"))
    _prompt: array[int] = field(default_factory=lambda: array("i"))
    _sample: array[int] = field(default_factory=lambda: array("q"))
    _failed: array[int] = field(default_factory=lambda: array("b"))

    def __len__(self) -> int:
        return len(self._offset)

    @classmethod
    def read(cls, sources: Sequence[Path], problems: Sequence[Problem], spool: Path) -> TraceIndex:
        """Check and index the rows of ``sources``; ``spool`` is a folder for flat copies.

        Rows of kind ``guess`` are kept apart. Raises InputError naming file and line for a row that
        is no trace or answers an unknown problem, and for files without any trace.
        """
        index = cls()
        places = {problem.id: place for place, problem in enumerate(problems)}
        following: dict[str, int] = {}
        for source in sources:
            index._add(source, places, following, spool)
        if not len(index):
            names = ", ".join(source.name for source in sources)
            raise InputError(f"{names}: there is no trace; give a file that holds some.")
        return index

    def _add(
        self, source: Path, places: Mapping[str, int], following: dict[str, int], spool: Path
    ) -> None:
        number = len(self.paths)
        flat = source.suffix not in (".gz", ".zst")
        path = source if flat else spool / f"traces-{number}.jsonl"
        self.paths.append(path)
        if flat:
            self._add_rows(number, _offsets(source), source.name, places, following)
            return
        with path.open("wb") as file:
            rows = _copied(source, file)
            self._add_rows(number, rows, source.name, places, following)

    def _add_rows(
        self,
        number: int,
        rows: Iterable[tuple[int, int, bytes]],
        name: str,
        places: Mapping[str, int],
        following: dict[str, int],
    ) -> None:
        for line_number, offset, line in rows:
            where = f"{name}, line {line_number}"
            row = _row(line, where)
            completion = _completion(row, where, following)
            place = places.get(completion.problem_id)
            if place is None:
                raise InputError(
                    f"{where}: problem {completion.problem_id!r} is not among the problems; give "
                    "those that the traces were drawn for."
                )
            if row.get("kind") == GUESS:
                self.guesses.setdefault(completion.problem_id, []).append(completion)
                continue
            following[completion.problem_id] = completion.sample + 1
            if not -(1 << 62) < completion.sample < 1 << 62:
                raise InputError(f"{where}: sample is too large a number.")
            self._file.append(number)
            self._offset.append(offset)
            self._length.append(len(line))
            self._prompt.append(place)
            self._sample.append(completion.sample)
            self._failed.append(completion.error is not None)

    def count(self, prompts: NDArray[np.bool_]) -> int:
        """How many traces there are of the chosen prompts; ``prompts`` is a mask, (prompts,)."""
        return int(prompts[np.frombuffer(self._prompt, dtype=np.int32)].sum())

    def by_question(
        self, clusters: NDArray[np.int64], chosen: NDArray[np.bool_] | None = None
    ) -> Iterator[tuple[int, list[tuple[int, Place]]]]:
        """(cluster, its traces' prompts and places), in order of cluster, prompt and sample.

        Of several rows with one key a completion comes before an error, else the earlier one first.

        ``clusters`` holds a number per prompt, (prompts,): that of the first prompt that it is
        nearly a copy of, or its own. ``chosen`` is a mask of prompts whose traces are wanted.
        """
        prompt = np.frombuffer(self._prompt, dtype=np.int32)
        sample = np.frombuffer(self._sample, dtype=np.int64)
        failed = np.frombuffer(self._failed, dtype=np.int8)
        order = np.lexsort((np.arange(len(self)), failed, sample, prompt, clusters[prompt]))
        if chosen is not None:
            order = order[chosen[prompt[order]]]
        question: list[tuple[int, Place]] = []
        cluster, before = -1, (-1, 0)
        for at in order:
            owner = int(clusters[prompt[at]])
            if owner != cluster and question:
                yield cluster, question
                question = []
            cluster = owner
            key = (int(prompt[at]), int(sample[at]))
            path = self.paths[self._file[at]]
            place = Place(path, self._offset[at], self._length[at], key[1], key == before)
            question.append((key[0], place))
            before = key
        if question:
            yield cluster, question


def _offsets(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """(line number, offset, line) of a flat file's rows."""
    offset = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, offset, line
                offset += len(line)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path}: cannot be read ({reason}); give a JSONL file.") from error


def _copied(source: Path, file: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
    """(line number, offset in the copy, line) of a compressed file's rows."""
    offset = 0
    for number, line in lines(source):
        file.write(line)
        yield number, offset, line
        offset += len(line)

"""Reading traces that were filtered already: ``kept.jsonl``, also .gz."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from distiller.errors import InputError
from distiller.filters.base import Trace
from distiller.traces import is_text
from evaluator.records import Problem


def read_kept(paths: Iterable[Path], prompts: Mapping[str, Problem]) -> Iterator[Trace]:
    """The traces of the files, in order; a row is ``{problem_id, completion, sample?, problem?}``.

    A row without ``problem`` answers the prompt of its id. Raises InputError naming file and line.
    """
    for path in paths:
        opener: Any = gzip.open if path.suffix == ".gz" else open
        try:
            with opener(path, "rt", encoding="utf-8") as file:
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        yield _trace(line, f"{path.name}: line {number}", prompts)
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            raise InputError(
                f"traces: {path} cannot be read ({error}); give a JSONL file, also .gz."
            ) from error


def _trace(line: str, where: str, prompts: Mapping[str, Problem]) -> Trace:
    try:
        row = json.loads(line)
        key = str(row["problem_id"])
        if not isinstance(row["completion"], str):
            raise TypeError("completion is no text")
        if "problem" not in row:
            row["problem"] = prompts[key].problem
            row["answer"] = prompts[key].answer
        if not is_text(row["completion"], row["problem"], row.get("reasoning")):
            raise ValueError("half a character, a lone surrogate, stands in it")
        defaults = {"sample": 0, "finish_reason": "unknown", "answer": ""}
        return Trace.from_json(defaults | row | {"problem_id": key})
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        what = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise InputError(
            f"traces: {where} is no kept trace ({what}); give the filter's kept.jsonl."
        ) from error

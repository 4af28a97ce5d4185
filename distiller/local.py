"""Traces in a folder: what ``python -m distiller generate`` keeps, without a database.

``generation.json`` how they are drawn · ``problems.jsonl`` the prompts · ``segments/`` completions
(``evaluator.store``) · ``traces.jsonl.gz`` what the filter command reads · ``tally.json`` counts,
tokens, cost. A folder is one generation: going on with other settings is refused.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from distiller import generation, traces
from distiller.errors import InputError
from distiller.recipe import Recipe
from evaluator import runner
from evaluator.engines import Engine
from evaluator.local import write_json, write_json_lines
from evaluator.records import Completion, Problem, canonical_json, content_hash, problems_hash
from evaluator.store import Store

SCHEMA = "retort/generation/1"
# What may change between two sittings: it moves no trace.
_FREE = {"price", "shard_prompts", "base_url"}


class Generation:
    """The traces of one recipe and prompt set in ``folder``; :meth:`begin` makes it."""

    def __init__(self, folder: Path, recipe: Recipe, problems: Sequence[Problem]) -> None:
        self.folder = folder
        self.recipe = recipe
        self.problems = list(problems)
        self.store = Store(folder / "segments")

    @classmethod
    def begin(
        cls,
        folder: Path,
        *,
        recipe: Recipe,
        problems: Sequence[Problem],
        engine: Mapping[str, Any],
    ) -> Generation:
        """Make the folder, or go on with it if everything that moves a trace is the same.

        ``engine`` is what the engine says of itself. Raises InputError naming the first field that
        differs, or where the folder holds something else.
        """
        manifest = describe(recipe, problems, engine)
        path = folder / "generation.json"
        if path.exists():
            there = _read_manifest(path)
            for field, value in manifest.items():
                if canonical_json(there.get(field)) != canonical_json(value):
                    raise InputError(
                        f"out: {folder} holds traces with another {field}; choose a new folder."
                    )
        else:
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                raise InputError(f"out: {folder} holds other files; choose a new folder.")
            folder.mkdir(parents=True, exist_ok=True)
            write_json_lines(folder / "problems.jsonl", [each.to_json() for each in problems])
            write_json(path, manifest)
        return cls(folder, recipe, problems)

    @property
    def traces_file(self) -> Path:
        """The traces as the filter command reads them."""
        return self.folder / "traces.jsonl.gz"

    def draw(self, engine: Engine, on_progress: runner.Progress) -> generation.Tally:
        """Draw what is missing, then write the traces and the tally; returns the tally."""
        earlier = (
            Completion.from_json(row) for row in self.store.rows() if row.get("error") is None
        )
        with (
            generation.Verifier(self.recipe) as verifier,
            self.store.writer(journal=True) as writer,
        ):
            tally = generation.draw(
                self.problems,
                recipe=self.recipe,
                engine=engine,
                writer=writer,
                verifier=verifier,
                earlier=earlier,
                on_progress=on_progress,
            )
        self._write_traces()
        price = self.recipe.generation.price
        figures = {
            "yield": tally.running_yield,
            "cost": tally.cost(price),
            "currency": None if price is None else price.currency,
        }
        write_json(self.folder / "tally.json", tally.to_json() | figures)
        return tally

    def _write_traces(self) -> None:
        """In the order in which they were drawn; samples that failed are left out."""
        with written_whole(self.traces_file) as file, gzip.GzipFile("", "wb", 6, file, 0) as packed:
            for row in self.store.rows():
                if row.get("error") is None:
                    trace = {
                        "problem_id": row["problem_id"],
                        "sample": row["sample"],
                        "completion": row["text"],
                        "finish_reason": row["finish_reason"],
                    }
                    line = json.dumps(trace, ensure_ascii=False)
                    packed.write(line.encode(errors="backslashreplace") + b"\n")


def describe(
    recipe: Recipe, problems: Sequence[Problem], engine: Mapping[str, Any]
) -> dict[str, Any]:
    """All that moves a trace, as generation.json holds it: the teacher's prompt stands in full."""
    protocol = traces.protocol(recipe)
    return {
        "schema": SCHEMA,
        "teacher": recipe.teacher,
        "engine": dict(engine),
        "prompts_hash": problems_hash(list(problems)),
        "prompts": len(problems),
        "teacher_prompt": protocol.prompt,
        "thinking": recipe.thinking.model_dump(mode="json"),
        "generation": recipe.generation.model_dump(mode="json", exclude=_FREE),
    }


def manifest_hash(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of a generation's manifest: the traces' address."""
    return content_hash(dict(manifest))


@contextmanager
def written_whole(path: Path) -> Iterator[IO[bytes]]:
    """A file to write; ``path`` holds all of it afterwards, or is as it was."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"out: {path} cannot be read ({error}); choose a new folder.") from error
    if not isinstance(value, dict):
        raise InputError(f"out: {path} is no manifest of traces; choose a new folder.")
    return value

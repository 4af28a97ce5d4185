"""Where a run's files lie, and reading them: texts stay in segments, rows only point at them.

What is read here is for pages: where a model wrote NUL or half a surrogate pair, which no page can
hold, the text has a mark.
"""

from __future__ import annotations

import itertools
import json
from collections import deque
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from evaluator.store import read_row, read_segment
from webapp.core import store
from webapp.core.text import storable_json
from webapp.runs.models import Completion, Segment, Stage, State

PREFLIGHT = "preflight.json"  # distiller.stages writes it


def store_path(relative: str) -> Path:
    """The absolute path of a file in the store."""
    return store.path_of(relative)


def stage_folder(stage: Stage) -> Path:
    """The folder of a stage's spec, segments and other output."""
    return store_path(f"runs/{stage.run_id}/{stage.pk}")


def segments_folder(stage: Stage) -> Path:
    """The folder of a stage's sealed segments, accepted or not."""
    return stage_folder(stage) / "segments"


def segment_path(stage: Stage, name: str) -> Path:
    """Where a sealed segment lies, brought to this host where another one made it."""
    return store.fetch(f"runs/{stage.run_id}/{stage.pk}/segments/{name}")


def accepted_segments(stage: Stage) -> list[Path]:
    """The segments that count, in the order in which they were accepted."""
    names = Segment.objects.filter(shard__stage=stage).order_by("pk").values_list("name", flat=True)
    folder = segments_folder(stage)
    return [folder / name for name in names]


def newest_rows(stage: Stage, most: int) -> list[dict[str, Any]]:
    """The last rows of the segment that was accepted last, the newest first; empty before any.

    Raises evaluator.errors.StoreError when the file is gone or damaged.
    """
    newest = Segment.objects.filter(shard__stage=stage).order_by("-pk").first()
    if newest is None:
        return []
    rows = deque(read_segment(segment_path(stage, newest.name)), maxlen=most)
    return [storable_json(row) for _, row in reversed(rows)]


def completion_text(completion: Completion) -> dict[str, Any]:
    """The completion's whole row, with its text, from its segment.

    Raises evaluator.errors.StoreError when the file is gone or is not the one that was accepted.
    """
    segment = completion.segment
    row = read_row(segment_path(segment.shard.stage, segment.name), completion.offset)
    found: dict[str, Any] = storable_json(row)
    return found


def read_corpus_rows(
    stage: Stage, which: Literal["kept", "dropped"], limit: int, offset: int
) -> list[dict[str, Any]]:
    """A page of a finished filter stage's rows; empty before there are any."""
    folder = stage.result.get("corpus")
    if stage.state != State.FINISHED or folder is None:
        return []
    # distiller.refining: beside the corpus
    path = store.fetch(str(PurePosixPath(folder).parent / f"{which}.jsonl"))
    with path.open(encoding="utf-8") as file:
        lines = itertools.islice(file, offset, offset + limit)
        return [storable_json(json.loads(line)) for line in lines]


def read_preflight(stage: Stage) -> dict[str, Any] | None:
    """What a preflight stage found (distiller.preflight.Report); None before it has."""
    path = stage_folder(stage) / PREFLIGHT
    if store.is_remote():  # each try writes it anew
        written = store.get(store.relative_of(path))
    else:
        written = path.read_bytes() if path.is_file() else None
    found: dict[str, Any] | None = None if written is None else storable_json(json.loads(written))
    return found

"""Where a run's files lie, and reading them: texts stay in segments, rows only point at them."""

from __future__ import annotations

import itertools
import json
from collections import deque
from pathlib import Path
from typing import Any, Literal

from django.conf import settings

from evaluator.store import read_row, read_segment
from webapp.runs.models import Completion, Segment, Stage, State


def store_path(relative: str) -> Path:
    """The absolute path of a file in the store."""
    return Path(settings.MEDIA_ROOT) / relative


def stage_folder(stage: Stage) -> Path:
    """The folder of a stage's spec, segments and other output."""
    return store_path(f"runs/{stage.run_id}/{stage.pk}")


def segments_folder(stage: Stage) -> Path:
    """The folder of a stage's sealed segments, accepted or not."""
    return stage_folder(stage) / "segments"


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
    rows = deque(read_segment(segments_folder(stage) / newest.name), maxlen=most)
    return [row for _, row in reversed(rows)]


def completion_text(completion: Completion) -> dict[str, Any]:
    """The completion's whole row, with its text, from its segment.

    Raises evaluator.errors.StoreError when the file is gone or is not the one that was accepted.
    """
    segment = completion.segment
    return read_row(segments_folder(segment.shard.stage) / segment.name, completion.offset)


def read_corpus_rows(
    stage: Stage, which: Literal["kept", "dropped"], limit: int, offset: int
) -> list[dict[str, Any]]:
    """A page of a finished filter stage's rows; empty before there are any."""
    folder = stage.result.get("corpus")
    if stage.state != State.FINISHED or folder is None:
        return []
    path = store_path(folder).parent / f"{which}.jsonl"  # distiller.refining: beside the corpus
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in itertools.islice(file, offset, offset + limit)]


def read_preflight(stage: Stage) -> dict[str, Any] | None:
    """What a preflight stage found (distiller.preflight.Report); None before it has."""
    path = stage_folder(stage) / "preflight.json"  # distiller.stages writes it
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found

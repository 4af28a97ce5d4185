"""Segments of completions that workers deliver into a full database. Needs django.setup()."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from django.db import connection

from bench._full_shapes import SETS
from evaluator.store import SEAL_ROWS, SealedSegment, SegmentWriter
from webapp.core.models import User
from webapp.projects.access import first_project
from webapp.runs import files, leases
from webapp.runs.models import Completion, Evaluation, Run, Shard, Stage, State

SAMPLES = 64
SET = next(each for each in SETS if each.name == "math_500")


def accepted(rows: int) -> dict[str, Any]:
    """Rows per second of ``leases.accept_segment`` over evaluations of 64 samples; then they go."""
    found = {"rows": 0, "seconds": 0.0, "segments": 0, "segment_rows": SEAL_ROWS}
    runs = []
    while found["rows"] < rows:
        stage = _stage()
        runs.append(stage.run_id)
        claim = leases.claim_shard(stage.pk, "bench")
        assert claim is not None
        sealed = list(_sealed(stage, claim.prefix, rows - int(found["rows"])))
        began = time.monotonic()
        for each in sealed:
            leases.accept_segment(claim, name=each.name, size_bytes=each.bytes, sha256=each.sha256)
        found["seconds"] += time.monotonic() - began
        found["segments"] += len(sealed)
        found["rows"] += sum(each.rows for each in sealed)
    kept = Completion.objects.filter(evaluation__run__in=runs).count()
    if kept != found["rows"]:
        raise RuntimeError(f"{kept} rows are there of {found['rows']}")
    _forget(runs)
    return found | {
        "seconds": round(found["seconds"], 1),
        "rows_per_second": round(found["rows"] / found["seconds"]),
    }


def _stage() -> Stage:
    """A queued stage of one shard."""
    like = Evaluation.objects.filter(benchmark__name=SET.name).order_by("pk").first()
    assert like is not None
    run = Run.objects.create(
        project=first_project(), owner=User.objects.order_by("pk")[0], kind="evaluation", config={},
        name="rows that come in",
    )  # fmt: skip
    evaluation = Evaluation.objects.create(
        run=run, checkpoint_id=like.checkpoint_id, benchmark_id=like.benchmark_id, samples=SAMPLES,
        protocol=like.protocol, measurement_hash=like.measurement_hash,
    )  # fmt: skip
    stage = Stage.objects.create(
        run=run, position=0, kind="evaluate", title="rows", state=State.QUEUED, queue="cpu",
        evaluation=evaluation,
    )  # fmt: skip
    Shard.objects.create(stage=stage, index=0)
    return stage


def _sealed(stage: Stage, prefix: str, most: int) -> Iterator[SealedSegment]:
    """The segments of at most so many rows, as an engine's child seals them."""
    sealed: list[SealedSegment] = []
    folder = files.segments_folder(stage)
    with SegmentWriter(folder, prefix=prefix, seal_seconds=1e9, on_seal=sealed.append) as writer:
        for place in range(min(most, SAMPLES * SET.count)):
            writer.append({
                "problem_id": SET.problems[place // SAMPLES].id, "sample": place % SAMPLES,
                "text": f"<think>\n{place}\n</think>\n$\\boxed{{{place}}}$", "reasoning": None,
                "finish_reason": "stop", "prompt_tokens": 80, "completion_tokens": 900,
            })  # fmt: skip
    yield from sealed


def _forget(runs: list[int]) -> None:
    """Take the rows away; the database is kept for the next measurement."""
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM runs_completion c USING runs_evaluation e "
            "WHERE c.evaluation_id = e.id AND e.run_id = ANY(%s)", [runs],
        )  # fmt: skip
        for pk in runs:
            Run.objects.get(pk=pk).delete()
        cursor.execute("VACUUM runs_completion")

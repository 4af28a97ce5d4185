"""An evaluation's report, built from its rows when it is asked for."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from django.utils import timezone

import evaluator
from evaluator import benchmarks, report
from evaluator.records import Outcome
from evaluator.store import read_segment
from webapp.checkpoints.queries import undecontaminated
from webapp.leaderboard.diagnostics import diagnostics
from webapp.runs import files
from webapp.runs.models import Completion, Evaluation

# Of every problem the page holds the first correct sample and the first other one, up to so many
# samples: enough to judge by, small enough to send by mail. The JSON holds every sample's figures.
PAGE_SAMPLES = 200


def html(found: Evaluation) -> str:
    """The report as one HTML page. Raises StoreError where a text cannot be read."""
    chosen = _telling(_completions(found))[:PAGE_SAMPLES]
    texts = _texts(chosen)
    samples = [_sample(c) | {"text": texts[c.pk]} for c in chosen]
    return report.html(_open(found, _head(found) | {"samples": samples}))


def as_json(found: Evaluation) -> str:
    """The report as JSON: every sample's figures, no texts."""
    data = _head(found) | {"samples": [_sample(c) for c in _completions(found)]}
    return json.dumps(report.as_json(_open(found, data)), ensure_ascii=False, indent=1)


def _open(found: Evaluation, data: dict[str, Any]) -> dict[str, Any]:
    """``data`` without the texts of a benchmark that may not be put in the open."""
    private = benchmarks.get(found.benchmark.name).private
    return report.without_texts(data) if private else data


def _completions(found: Evaluation) -> Iterable[Completion]:
    return (
        Completion.objects.filter(evaluation=found)
        .select_related("problem", "segment__shard__stage")
        .order_by("problem__position", "sample")
    )


def _head(found: Evaluation) -> dict[str, Any]:
    told = diagnostics(found)
    return {
        "title": f"{found}, not decontaminated"
        if found.checkpoint_id in undecontaminated()
        else str(found),
        "checkpoint": str(found.checkpoint or found.role),
        "benchmark": found.benchmark.title,
        "protocol": found.protocol,
        "measurement_hash": found.measurement_hash,
        "run_fingerprint": found.run_fingerprint,
        "engine": found.engine,
        "metrics": found.metrics,
        "diagnostics": None if told is None else told.to_json(),
        "rendered_prompt": found.rendered_prompt,
        "generated_at": timezone.now().isoformat(timespec="seconds"),
        "version": evaluator.__version__,
    }


def _sample(completion: Completion) -> dict[str, Any]:
    return {
        "problem_id": completion.problem.problem_id,
        "problem": completion.problem.problem,
        "gold": completion.problem.answer,
        "sample": completion.sample,
        "outcome": completion.outcome,
        "answer": completion.answer,
        "reason": completion.reason,
        "judged": completion.judged,
        "finish_reason": completion.finish_reason,
        "completion_tokens": completion.completion_tokens,
    }


def _telling(completions: Iterable[Completion]) -> list[Completion]:
    """Of every problem the first correct sample and the first other one."""
    seen: set[tuple[int, bool]] = set()
    chosen = []
    for completion in completions:
        key = (completion.problem_id, completion.outcome == Outcome.CORRECT)
        if key not in seen:
            seen.add(key)
            chosen.append(completion)
    return chosen


def _texts(completions: Iterable[Completion]) -> dict[int, str]:
    """Texts by completion; every segment is read once."""
    wanted: dict[Path, dict[int, int]] = defaultdict(dict)
    for completion in completions:
        folder = files.segments_folder(completion.segment.shard.stage)
        wanted[folder / completion.segment.name][completion.offset] = completion.pk
    texts: dict[int, str] = {}
    for path, offsets in wanted.items():
        for offset, row in read_segment(path):
            if offset in offsets:
                texts[offsets[offset]] = str(row["text"])
    return texts

"""An evaluation's report from its rows: the small forms at once, the large ones by a worker.

Every form is written by ``evaluator.report_files``, as on the command line.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone

import evaluator
from evaluator import benchmarks, report, report_files, signing
from evaluator.records import Outcome
from evaluator.report_files import Content, Format
from evaluator.store import read_segment
from webapp.benchmarks.services import problems_file
from webapp.checkpoints.queries import undecontaminated
from webapp.core import store
from webapp.core.errors import UserError
from webapp.core.models import User
from webapp.leaderboard import disputes, evaluations
from webapp.leaderboard.diagnostics import diagnostics
from webapp.leaderboard.models import DisputedScore, Report
from webapp.runs import files
from webapp.runs.models import Completion, Evaluation, Segment

# Of every problem the page holds the first correct sample and the first other one, up to so many
# samples: enough to judge by, small enough to send by mail.
PAGE_SAMPLES = 200
AT_ONCE: tuple[Format, ...] = ("html", "json", "csv", "parquet")
BY_WORKER: tuple[Format, ...] = ("pdf", "zip")
CONTENT_TYPES: dict[str, str] = {
    "html": "text/html; charset=utf-8",
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
    "pdf": "application/pdf",
    "zip": "application/zip",
}


def is_private(found: Evaluation) -> bool:
    """Whether the benchmark's texts may not be put in the open."""
    return benchmarks.get(found.benchmark.name).private


def content(found: Evaluation, *, private_texts: bool = False) -> Content:
    """What the report of a graded evaluation is made of.

    Raises StoreError where a text cannot be read, and UserError where a benchmark's tests are gone.
    """
    words = [disputes.record(row) for row in disputes.open_of(found)]
    private = is_private(found)
    hide = private and not private_texts
    chosen = _telling(found)
    texts = _texts(chosen)
    data = _head(found) | {
        "samples": [_sample(each) | {"text": texts[each.pk]} for each in chosen],
        "notice": report.NOTICE if private and private_texts else None,
    }
    if words:
        scored = DisputedScore.objects.filter(evaluation=found).first()
        ready = scored is not None and not scored.is_due
        data["disputes"] = {
            "items": [word.to_json() for word in words],
            "metrics": scored.metrics if scored is not None and ready else None,
        }
    claims = {word.key: str(word.claim) for word in words}
    return Content(
        data=report.without_texts(data) if hide else data,
        benchmark=found.benchmark.name,
        samples=found.samples,
        rows=lambda: _rows(found, claims, hide=hide),
        problems=None if hide else lambda: _problems(found),
        completions=None if hide else lambda: _drawn(found),
    )


def at_once(found: Evaluation, form: str, *, private_texts: bool = False) -> bytes:
    """A form that is made while one waits. Raises EvaluatorError and UserError."""
    with tempfile.TemporaryDirectory(prefix="retort-report-") as folder:
        target = Path(folder) / f"report.{form}"
        made = content(found, private_texts=private_texts)
        report_files.write(made, report_files.checked(form), target)
        return target.read_bytes()


def ask_for(user: User, found: Evaluation, form: str, *, private_texts: bool = False) -> Report:
    """Have a worker make a form that takes its time. Raises UserError."""
    if form not in BY_WORKER:
        raise UserError(f"format: choose one of {', '.join(BY_WORKER)}.", "format")
    if not found.metrics:
        raise UserError("format: this evaluation has no figures to report yet.", "format")
    private_texts = private_texts and is_private(found)
    try:
        with transaction.atomic():
            return Report.objects.create(
                evaluation=found, form=form, owner=user, private_texts=private_texts
            )
    except IntegrityError:  # it waits already
        return Report.objects.get(
            evaluation=found, form=form, private_texts=private_texts, state=Report.State.QUEUED
        )


def make(pk: int) -> None:
    """Make a report that waits, in place of earlier ones of the same form."""
    row = Report.objects.select_related(
        "evaluation__checkpoint", "evaluation__benchmark", "evaluation__run"
    ).get(pk=pk)
    relative = f"reports/{row.evaluation_id}/{uuid.uuid4().hex}.{row.form}"
    target = files.store_path(relative)
    target.parent.mkdir(parents=True, exist_ok=True)
    made = content(row.evaluation, private_texts=row.private_texts)
    key_file = signing_key_file()
    report_files.write(
        made, report_files.checked(row.form), target, key=lambda: signing.private_key(key_file)
    )
    with target.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    store.publish(relative)  # the web server may be another host
    Report.objects.filter(pk=pk).update(
        state=Report.State.READY, path=relative, sha256=digest, error="", claimed_until=None,
        size_bytes=target.stat().st_size, made_at=timezone.now(),
    )  # fmt: skip
    _forget_earlier(row)


def _forget_earlier(row: Report) -> None:
    earlier = Report.objects.filter(
        evaluation=row.evaluation, form=row.form, private_texts=row.private_texts, pk__lt=row.pk
    ).exclude(state=Report.State.QUEUED)
    for path in earlier.exclude(path="").values_list("path", flat=True):
        files.store_path(path).unlink(missing_ok=True)
        store.remove(path)
    earlier.delete()


def signing_key_file() -> Path:
    """Where this installation's key lies."""
    return signing.default_path(settings.RETORT_VAR)


def public_key() -> tuple[bytes, str]:
    """The installation's public key as PEM, and its fingerprint."""
    key = signing.private_key(signing_key_file())
    return signing.public_pem(key), signing.fingerprint(key.public_key())


def newest(found: Evaluation) -> list[Report]:
    """The evaluation's made and waiting reports, the newest of each form and privacy."""
    rows: dict[tuple[str, bool], Report] = {}
    for row in Report.objects.filter(evaluation=found).select_related("owner"):
        rows.setdefault((row.form, row.private_texts), row)
    return sorted(rows.values(), key=lambda row: (BY_WORKER.index(row.form), row.private_texts))


def _head(found: Evaluation) -> dict[str, Any]:
    told = diagnostics(found)
    return {
        "title": f"{found}, not decontaminated"
        if undecontaminated([found.checkpoint_id])
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
    }


def _rows(
    found: Evaluation, claims: dict[tuple[str, int], str], *, hide: bool
) -> Iterator[dict[str, Any]]:
    """Every sample's figures (``report_files.COLUMNS``), and what the judge saw of a program."""
    for row in evaluations.sample_rows(found):
        figures = {
            **row,
            "disputed": claims.get((row["problem_id"], row["sample"])),
            "verdict": (row["judged"] or {}).get("verdict"),
        }
        yield report.bare_row(figures) if hide else figures


def _problems(found: Evaluation) -> Iterator[dict[str, Any]]:
    with problems_file(found.benchmark).open(encoding="utf-8") as file:
        for line in file:
            if line.strip():
                yield json.loads(line)


def _drawn(found: Evaluation) -> Iterator[dict[str, Any]]:
    """The completions that count, a segment at a time."""
    segments = (
        Segment.objects.filter(completion__evaluation=found)
        .select_related("shard__stage")
        .distinct()
        .order_by("pk")
    )
    for segment in segments:
        counted = set(
            Completion.objects.filter(evaluation=found, segment=segment).values_list(
                "offset", flat=True
            )
        )
        path = files.segment_path(segment.shard.stage, segment.name)
        for offset, row in read_segment(path, sha256=segment.sha256):
            if offset in counted:
                yield row


def _telling(found: Evaluation) -> list[Completion]:
    """Of every problem the first correct sample and the first other one, up to so many."""
    everything = Completion.objects.filter(evaluation=found)
    right = Q(outcome=str(Outcome.CORRECT))
    firsts = [
        everything.filter(kind).order_by("problem_id", "sample").distinct("problem_id").values("pk")
        for kind in (right, ~right)
    ]
    return list(
        everything.filter(Q(pk__in=firsts[0]) | Q(pk__in=firsts[1]))
        .select_related("problem", "segment__shard__stage")
        .order_by("problem__position", "sample")[:PAGE_SAMPLES]
    )


def _texts(completions: Iterable[Completion]) -> dict[int, str]:
    """Texts by completion; every segment is read once."""
    wanted: dict[Path, dict[int, int]] = defaultdict(dict)
    for completion in completions:
        segment = completion.segment
        path = files.segment_path(segment.shard.stage, segment.name)
        wanted[path][completion.offset] = completion.pk
    texts: dict[int, str] = {}
    for path, offsets in wanted.items():
        for offset, row in read_segment(path):
            if offset in offsets:
                texts[offsets[offset]] = str(row["text"])
    return texts

"""Evaluations: figures, passports, completions with their texts, disputes."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from django.db import transaction
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from pydantic import Field

from evaluator.errors import StoreError
from evaluator.records import Outcome
from webapp.api.auth import WRITE
from webapp.api.framework import Query, Router, Schema
from webapp.api.paging import LARGEST_KEY, Page, Paged, cut, page
from webapp.api.schemas import Done, In, Key, Name, Text
from webapp.core import audit
from webapp.core.users import signed_in
from webapp.leaderboard import disputes, evaluations
from webapp.leaderboard.models import Dispute, DisputedScore
from webapp.runs import files
from webapp.runs.models import Completion, Evaluation

router = Router(tags=["evaluations"])

_SAMPLE_BITS = 20  # of a completion's key: its problem's position, then its sample


class EvaluationOut(Schema):
    """A checkpoint measured on a benchmark under a protocol."""

    id: int
    run: int
    checkpoint: str = Field(description="Its name; before a student is there, its role.")
    checkpoint_id: int | None
    role: str
    benchmark: str
    benchmark_id: int
    samples: int = Field(description="n")
    measurement_hash: str
    run_fingerprint: str
    pass_at_1: float | None = Field(description="pass@1[avg-of-n]; null: not scored.")
    created_at: datetime


class EvaluationDetail(EvaluationOut):
    """An evaluation with its figures and its passport: what it was measured with."""

    outcomes: dict[str, int]
    metrics: dict[str, Any] | None = Field(description="metrics.json; null: not graded yet.")
    protocol: dict[str, Any]
    engine: dict[str, Any]
    rendered_prompt: str


class CompletionOut(Schema):
    """A sample: its verdict and, where it was asked for, its text."""

    problem: int = Field(description="The problem's key.")
    problem_id: str
    sample: int
    outcome: str = Field(description="Blank: not graded yet.")
    answer: str | None
    gold: str
    reason: str
    finish_reason: str
    prompt_tokens: int | None
    completion_tokens: int | None
    text: str | None = Field(description="null: not asked for, or its file is gone.")


class DisputeOut(Schema):
    """A person's word that an outcome is wrong."""

    id: int
    problem: int
    problem_id: str
    sample: int
    claim: Dispute.Claim
    reason: str
    outcome: str
    author: str
    created_at: datetime
    withdrawn_at: datetime | None


class DisputedOut(Schema):
    """The score if every open dispute were right."""

    due: bool = Field(description="It is being worked out.")
    error: str
    metrics: dict[str, Any] | None


class EvaluationsWanted(Paged):
    """Which evaluations of the list."""

    checkpoint: Name = Field("", description="A checkpoint's name.")
    benchmark: Name = Field("", description="A benchmark's name.")
    run: Key | None = None
    scored: bool = Field(False, description="Only those with figures.")


class CompletionsWanted(Paged):
    """Which completions, by problems and samples."""

    after: int | None = Field(None, ge=0, le=LARGEST_KEY)
    limit: int = Field(50, ge=1, le=200, description="Rows at most; with texts, 20.")
    outcome: Outcome | None = None
    problem: Key | None = Field(None, description="The problem's key.")
    texts: bool = False


class DisputeIn(In):
    """What a sample should have counted as, and why."""

    problem: Key
    sample: Annotated[int, Field(ge=0, le=2**31 - 1)]
    claim: Dispute.Claim
    reason: Annotated[Text, Field(max_length=2000)]
    alike: bool = Field(False, description="Also the problem's samples with the same answer.")


def found(request: HttpRequest, pk: int) -> Evaluation:
    """The evaluation, where whoever asks may look at it. Raises DoesNotExist."""
    return evaluations.evaluation(signed_in(request), pk)


def _out(row: Evaluation) -> dict[str, Any]:
    names = ("id", "checkpoint_id", "role", "benchmark_id", "samples", "measurement_hash",
             "run_fingerprint", "pass_at_1", "created_at")  # fmt: skip
    return {name: getattr(row, name) for name in names} | {
        "run": row.run_id, "checkpoint": str(row.checkpoint or row.role),
        "benchmark": row.benchmark.name,
    }  # fmt: skip


@router.get("", response=Page[EvaluationOut])
def evaluations_list(request: HttpRequest, wanted: Query[EvaluationsWanted]) -> dict[str, Any]:
    """Evaluations, the newest first."""
    rows = evaluations.seen(signed_in(request)).select_related("checkpoint", "benchmark")
    rows = rows.defer("metrics", "protocol", "rendered_prompt", "engine")
    if wanted.checkpoint:
        rows = rows.filter(checkpoint__name=wanted.checkpoint)
    if wanted.benchmark:
        rows = rows.filter(benchmark__name=wanted.benchmark)
    if wanted.run is not None:
        rows = rows.filter(run=wanted.run)
    if wanted.scored:
        rows = rows.filter(metrics__isnull=False)
    listed = page(rows, wanted)
    return {**listed, "items": [_out(each) for each in listed["items"]]}


@router.get("/{int:pk}", response=EvaluationDetail)
def evaluations_one(request: HttpRequest, pk: int) -> dict[str, Any]:
    """An evaluation with its figures and its passport."""
    row = found(request, pk)
    return _out(row) | {
        "outcomes": evaluations.outcome_counts(row), "metrics": row.metrics,
        "protocol": row.protocol, "engine": row.engine, "rendered_prompt": row.rendered_prompt,
    }  # fmt: skip


@router.get("/{int:pk}/completions", response=Page[CompletionOut])
def evaluations_completions(
    request: HttpRequest, pk: int, wanted: Query[CompletionsWanted]
) -> dict[str, Any]:
    """Its completions by problems and samples, with their texts where ``texts`` is set."""
    rows = Completion.objects.filter(evaluation=found(request, pk)).select_related(
        "problem", "segment__shard__stage"
    )
    if wanted.texts:
        wanted.limit = min(wanted.limit, 20)
    if wanted.after is not None:
        position, sample = wanted.after >> _SAMPLE_BITS, wanted.after & ((1 << _SAMPLE_BITS) - 1)
        if position >= 2**31:
            rows = rows.none()
        rows = rows.filter(
            Q(problem__position__gt=position) | Q(problem__position=position, sample__gt=sample)
        )
    if wanted.outcome is not None:
        rows = rows.filter(outcome=wanted.outcome)
    if wanted.problem is not None:
        rows = rows.filter(problem=wanted.problem)
    listed = list(rows.order_by("problem__position", "sample")[: wanted.limit + 1])
    last = 0
    if len(listed) > wanted.limit:
        row = listed[wanted.limit - 1]
        last = (row.problem.position << _SAMPLE_BITS) | row.sample
    part = cut(listed, wanted, last)
    return {**part, "items": [_completion(row, texts=wanted.texts) for row in part["items"]]}


def _completion(row: Completion, *, texts: bool) -> dict[str, Any]:
    names = ("sample", "outcome", "answer", "reason", "finish_reason", "prompt_tokens",
             "completion_tokens")  # fmt: skip
    text = None
    if texts:
        try:
            whole = files.completion_text(row)
            text = "\n".join(each for each in (whole.get("reasoning"), whole["text"]) if each)
        except (StoreError, OSError):
            text = None
    return {name: getattr(row, name) for name in names} | {
        "problem": row.problem_id, "problem_id": row.problem.problem_id,
        "gold": row.problem.answer,
        # A model may write half a character, which JSON text in UTF-8 cannot hold.
        "text": None if text is None else text.encode(errors="replace").decode(),
    }  # fmt: skip


# --- disputes


def _dispute(row: Dispute) -> dict[str, Any]:
    names = ("id", "sample", "claim", "reason", "outcome", "created_at", "withdrawn_at")
    return {name: getattr(row, name) for name in names} | {
        "problem": row.problem_id, "problem_id": row.problem.problem_id,
        "author": row.author.get_username(),
    }  # fmt: skip


@router.get("/{int:pk}/disputes", response=Page[DisputeOut])
def disputes_list(request: HttpRequest, pk: int, wanted: Query[Paged]) -> dict[str, Any]:
    """Every dispute, withdrawn ones too, the newest first."""
    rows = Dispute.objects.filter(evaluation=found(request, pk))
    listed = page(rows.select_related("problem", "author"), wanted)
    return {**listed, "items": [_dispute(each) for each in listed["items"]]}


@router.post("/{int:pk}/disputes", response={201: list[DisputeOut]}, auth=WRITE)
def disputes_make(request: HttpRequest, pk: int, body: DisputeIn) -> Any:
    """Dispute a sample's outcome; the grader's verdict itself stays."""
    person = signed_in(request)
    row = get_object_or_404(
        Completion.objects.select_related("evaluation__run", "problem"),
        evaluation=found(request, pk), problem=body.problem, sample=body.sample,
    )  # fmt: skip
    with transaction.atomic():
        made = disputes.dispute(person, row, body.claim, body.reason, alike=body.alike)
        audit.record(person, "dispute.create", made[0], samples=len(made))
    return [_dispute(each) for each in made]


@router.post("/{int:pk}/disputes/{int:dispute}/withdraw", response=Done, auth=WRITE)
def disputes_withdraw(request: HttpRequest, pk: int, dispute: int) -> dict[str, str]:
    """Take a dispute back; it stays on record."""
    person, evaluation = signed_in(request), found(request, pk)
    rows = Dispute.objects.select_related("evaluation__run")
    row = get_object_or_404(rows, pk=dispute, evaluation=evaluation)
    with transaction.atomic():
        disputes.withdraw(person, row)
        audit.record(person, "dispute.withdraw", row)
    return {"sentence": "The dispute is withdrawn; it stays on record."}


@router.get("/{int:pk}/disputes/score", response=DisputedOut)
def disputes_score(request: HttpRequest, pk: int) -> dict[str, Any]:
    """The score if every open dispute were right."""
    row = DisputedScore.objects.filter(evaluation=found(request, pk)).first()
    if row is None:
        return {"due": False, "error": "", "metrics": None}
    return {"due": row.is_due, "error": row.error, "metrics": row.metrics}


_LINES = {"application/jsonl": {"schema": {"type": "string", "format": "binary"}}}


@router.get(
    "/{int:pk}/disputes.jsonl",
    openapi_extra={"responses": {200: {"description": "A line each.", "content": _LINES}}},
)
def disputes_export(request: HttpRequest, pk: int) -> HttpResponse:
    """The open disputes as golden grading cases, and as input of ``report --disputes``."""
    body = "".join(disputes.golden_lines(found(request, pk)))
    return HttpResponse(body.encode(errors="replace"), content_type="application/jsonl")

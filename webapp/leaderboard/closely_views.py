"""An evaluation's page, and its samples one by one."""

from __future__ import annotations

import json
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_safe

from evaluator import graders
from evaluator.errors import StoreError
from webapp.benchmarks.models import Problem
from webapp.checkpoints.queries import undecontaminated
from webapp.core.numbers import query_number
from webapp.core.users import signed_in
from webapp.leaderboard import closely, disputes, evaluations, reports, texts
from webapp.leaderboard.charts import curves_figure
from webapp.leaderboard.diagnostics import diagnostics
from webapp.leaderboard.models import DisputedScore
from webapp.projects.access import may_use
from webapp.runs import files
from webapp.runs.models import Completion, Evaluation
from webapp.runs.texts import TextView


def found_evaluation(request: HttpRequest, pk: int) -> Evaluation:
    """One evaluation, or a page that says that there is none that the person may look at."""
    try:
        return evaluations.evaluation(signed_in(request), pk)
    except Evaluation.DoesNotExist:
        raise Http404 from None


@require_safe
def evaluation(request: HttpRequest, pk: int) -> HttpResponse:
    """One evaluation: figures, outcomes, curves, every problem, what to do next."""
    found = found_evaluation(request, pk)
    metrics = found.metrics or {}
    user, checkpoint = signed_in(request), found.checkpoint
    wanted, page = closely.Wanted.of(request.GET), request.GET.get("page")
    table = closely.problem_table(user, found, wanted, page)
    context = {
        "evaluation": found,
        "metrics": metrics,
        "may_evaluate": checkpoint is not None and may_use(user, checkpoint.project),
        "undecontaminated": bool(undecontaminated([found.checkpoint_id])),
        "score": metrics.get("pass@1") or {},
        "consensus": (metrics.get("cons@k") or {}).get(str(found.samples)),
        "pass_n": (metrics.get("pass@k") or {}).get(str(found.samples)),
        "outcomes": evaluations.outcome_counts(found),
        "curves": curves_figure(metrics),
        "diagnostics": diagnostics(found),
        "programs": evaluations.programs(metrics),
        "by": evaluations.groups(metrics),
        "table": table,
        "page": table.page,
        "disputed": disputed_context(found),
    }
    return render(request, "leaderboard/evaluation.html", context)


def disputed_context(found: Evaluation) -> dict[str, Any] | None:
    """The score with disputes beside the grader's; None where nobody ever disputed anything."""
    score = DisputedScore.objects.filter(evaluation=found).first()
    if score is None:
        return None
    metrics = score.metrics or {}
    n = str(found.samples)
    return {
        "evaluation": found,
        "score": score,
        "count": found.disputes.filter(withdrawn_at=None).count(),
        "pass": metrics.get("pass@1") or {},
        "consensus": (metrics.get("cons@k") or {}).get(n),
        "grader_pass": (found.metrics or {}).get("pass@1") or {},
        "grader_consensus": ((found.metrics or {}).get("cons@k") or {}).get(n),
    }


@require_safe
def problem(request: HttpRequest, pk: int, problem: int) -> HttpResponse:
    """One problem of an evaluation: one sample in full, every sample's figures."""
    found = found_evaluation(request, pk)
    try:
        view = closely.sample_view(found, problem, query_number(request, "sample"))
    except Problem.DoesNotExist:
        raise Http404 from None
    text, missing = _text(found, view.shown)
    context = {
        "evaluation": found,
        "view": view,
        "text": text,
        "missing": missing,
        "grader": graders.get(found.benchmark.grader).identity,
        "private": reports.is_private(found),
        "may_dispute": disputes.may_dispute(signed_in(request), found),
        "steps": {name: _address(found, key) for name, key in view.around.items() if key},
    }
    return render(request, "leaderboard/problem.html", context)


def _address(found: Evaluation, key: closely.Key) -> str:
    problem, sample = key
    return f"{reverse('leaderboard:problem', args=[found.pk, problem])}?sample={sample}"


def _text(found: Evaluation, completion: Completion | None) -> tuple[texts.SampleText | None, str]:
    """A completion's text, or the sentence that says why it cannot be shown."""
    if completion is None:
        return None, ""
    try:
        row = files.completion_text(completion)
    except (StoreError, OSError) as error:
        return None, f"The text cannot be read: {error}"
    return texts.SampleText.of(row, found.protocol["thinking"]), ""


def _row(
    request: HttpRequest, pk: int, problem: int, sample: int
) -> tuple[Evaluation, dict[str, Any]]:
    """A completion's whole row; no page where there is none, or its file is gone."""
    found = found_evaluation(request, pk)
    completion = (
        Completion.objects.filter(evaluation=found, problem=problem, sample=sample)
        .select_related("segment__shard__stage")
        .first()
    )
    if completion is None:
        raise Http404
    try:
        return found, files.completion_text(completion)
    except (StoreError, OSError):
        raise Http404 from None


@require_safe
def raw(request: HttpRequest, pk: int, problem: int, sample: int) -> HttpResponse:
    """A response as plain text, unsplit; ``?as=json`` its whole row."""
    _, row = _row(request, pk, problem, sample)
    if request.GET.get("as") == "json":
        body = json.dumps(row, ensure_ascii=False, indent=1)
    else:
        body = "\n".join(part for part in (row.get("reasoning"), row["text"]) if part)
    # Never as a page: the words are a model's. (Django sends X-Content-Type-Options: nosniff.)
    data = body[: texts.RAW_CHARACTERS].encode(errors="replace")
    return HttpResponse(data, content_type="text/plain; charset=utf-8")


@require_safe
def part(request: HttpRequest, pk: int, problem: int, sample: int, which: str) -> HttpResponse:
    """The next part of a long text; ``?all=yes`` the whole of it as plain text, for the search."""
    wanted: texts.Which
    if which == "thinking":
        wanted = "thinking"
    elif which == "answer":
        wanted = "answer"
    else:
        raise Http404
    found, row = _row(request, pk, problem, sample)
    view = TextView.of(row, found.protocol["thinking"])
    if request.GET.get("all"):
        whole = view.thinking if wanted == "thinking" else view.answer
        data = whole[: texts.RAW_CHARACTERS].encode(errors="replace")
        return HttpResponse(data, content_type="text/plain; charset=utf-8")
    shown = texts.part_of(view, wanted, query_number(request, "from") or 0)
    context = {"evaluation": found, "problem": problem, "sample": sample, "part": shown}
    return render(request, "leaderboard/_part.html", context)

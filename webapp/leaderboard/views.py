"""An evaluation, its problems, its reports."""

from __future__ import annotations

from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from evaluator.errors import StoreError
from webapp.benchmarks.models import Problem
from webapp.checkpoints.queries import undecontaminated
from webapp.core.numbers import query_number
from webapp.leaderboard import evaluations, reports
from webapp.leaderboard.charts import curves_figure
from webapp.leaderboard.diagnostics import diagnostics
from webapp.runs import files
from webapp.runs.models import Completion, Evaluation
from webapp.runs.texts import TextView


def _evaluation(pk: int) -> Evaluation:
    try:
        return evaluations.evaluation(pk)
    except Evaluation.DoesNotExist:
        raise Http404 from None


@require_safe
def evaluation(request: HttpRequest, pk: int) -> HttpResponse:
    """One evaluation: figures, outcomes, curves, every problem."""
    found = _evaluation(pk)
    sort = request.GET.get("sort", "position")
    sort = sort if sort in evaluations.PROBLEM_SORTS else "position"
    paginator = Paginator(evaluations.problems(found, sort), evaluations.PROBLEMS_PER_PAGE)
    page = paginator.get_page(request.GET.get("page"))
    metrics = found.metrics or {}
    context = {
        "evaluation": found,
        "metrics": metrics,
        "undecontaminated": found.checkpoint_id in undecontaminated(),
        "score": metrics.get("pass@1") or {},
        "consensus": (metrics.get("cons@k") or {}).get(str(found.samples)),
        "pass_n": (metrics.get("pass@k") or {}).get(str(found.samples)),
        "outcomes": evaluations.outcome_counts(found),
        "curves": curves_figure(metrics),
        "diagnostics": diagnostics(found),
        "programs": evaluations.programs(metrics),
        "by": evaluations.groups(metrics),
        "page": page,
        "problems": evaluations.problem_rows(found, list(page)),
        "sort": sort,
        "sorts": evaluations.PROBLEM_SORTS,
    }
    return render(request, "leaderboard/evaluation.html", context)


@require_safe
def problem(request: HttpRequest, pk: int, problem: int) -> HttpResponse:
    """One problem of an evaluation: every sample's figures, one sample's text."""
    found = _evaluation(pk)
    try:
        view = evaluations.problem_view(found, problem, query_number(request, "sample"))
    except Problem.DoesNotExist:
        raise Http404 from None
    text, missing = _text(found, view.shown)
    context = {"evaluation": found, "view": view, "text": text, "missing": missing}
    return render(request, "leaderboard/problem.html", context)


def _text(found: Evaluation, completion: Completion | None) -> tuple[TextView | None, str]:
    """A completion's text, or the sentence that says why it cannot be shown."""
    if completion is None:
        return None, ""
    try:
        return TextView.of(files.completion_text(completion), found.protocol["thinking"]), ""
    except (StoreError, OSError) as error:
        return None, f"The text cannot be read: {error}"


def _graded(pk: int) -> Evaluation:
    """An evaluation that has figures to report."""
    found = _evaluation(pk)
    if not found.metrics:
        raise Http404("This evaluation has no figures yet.")
    return found


@require_safe
def report_html(request: HttpRequest, pk: int) -> HttpResponse:
    """The report as one HTML file to keep."""
    found = _graded(pk)
    return _attachment(reports.html(found), "text/html; charset=utf-8", f"evaluation-{pk}.html")


@require_safe
def report_json(request: HttpRequest, pk: int) -> HttpResponse:
    """The report as JSON."""
    found = _graded(pk)
    return _attachment(reports.as_json(found), "application/json", f"evaluation-{pk}.json")


def _attachment(body: str, content_type: str, name: str) -> HttpResponse:
    response = HttpResponse(body, content_type=content_type)
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response

"""Runs: list, watch, cancel, retry. What launches them is in launch_views.py."""

from __future__ import annotations

from typing import Any, Literal

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from evaluator.errors import StoreError
from webapp.core import audit
from webapp.core.errors import UserError
from webapp.core.numbers import query_number
from webapp.core.users import signed_in
from webapp.projects.access import may_manage, projects_of, seen_by
from webapp.projects.models import Role
from webapp.runs import files, queries, redraw, services, waiting
from webapp.runs.charts import loss_figure
from webapp.runs.cost_views import of_run
from webapp.runs.models import Run, State
from webapp.runs.texts import ExampleView, GlimpseView, PreflightView
from webapp.runs.yields import traces_of

PAGE = 25
EXAMPLES = 5
NEWEST = 3
STOP_POLLING = 286  # htmx's own status


def _index_context(request: HttpRequest) -> dict[str, Any]:
    user = signed_in(request)
    wanted = queries.RunFilter.of(request.GET)
    page = Paginator(queries.runs(wanted, user), PAGE).get_page(request.GET.get("page"))
    views = [queries.view_of(run) for run in page]
    return {
        "page": page,
        "runs": views,
        "wanted": wanted,
        "states": State.values,
        "kinds": Run.Kind.choices,
        "owners": queries.run_owners(user),
        "projects": list(projects_of(user).values_list("name", flat=True)),
        "may_launch": projects_of(user, Role.OPERATOR).exists(),
        "live": any(not view.is_final for view in views),
    }


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    """All runs that one sees, newest first; failed ones stay, with their cause."""
    return render(request, "runs/index.html", _index_context(request))


@require_safe
def index_live(request: HttpRequest) -> HttpResponse:
    """The list's rows, for polling while a run on the page is not final."""
    return render(request, "runs/_list.html", _index_context(request))


def _run_view(request: HttpRequest, pk: int) -> queries.RunView:
    """The run, where whoever asks may see it."""
    try:
        return queries.run_view(pk, signed_in(request))
    except Run.DoesNotExist:
        raise Http404 from None


def _detail_context(request: HttpRequest, pk: int) -> dict[str, Any]:
    user = signed_in(request)
    view = _run_view(request, pk)
    filtered = queries.filter_stage(view)
    evaluations = queries.run_evaluations(view.run)
    checked = queries.preflight_stage(view)
    return {
        "run": view.run,
        "view": view,
        "may_manage": may_manage(user, view.run),
        "may_launch": projects_of(user, Role.OPERATOR).exists(),
        "evaluations": evaluations,
        "comparison": queries.comparison(evaluations),
        "waiting": "" if view.is_final else waiting.reason(view.run),
        "mendable": view.run.state == State.FINISHED and redraw.is_mendable(view.run),
        "loss": loss_figure(queries.loss_curve(view)),
        "funnel": queries.funnel(filtered) if filtered else None,
        "filter_stage": filtered,
        "preflight": PreflightView.of(files.read_preflight(checked)) if checked else None,
        "traces": traces_of(view.run),
        "costs": of_run(view.run, [item.stage for item in view.stages]),
        "products": list(seen_by(user, view.run.products.only("pk", "name"))),
    }


@require_safe
def detail(request: HttpRequest, pk: int) -> HttpResponse:
    """One run: state, stages, loss, funnel, examples, results."""
    return render(request, "runs/detail.html", _detail_context(request, pk))


@require_safe
def live(request: HttpRequest, pk: int) -> HttpResponse:
    """The part of the run's page that changes, for polling until the run is final."""
    return render(request, "runs/_live.html", _detail_context(request, pk))


@require_safe
def latest(request: HttpRequest, pk: int) -> HttpResponse:
    """What the run's models wrote last, while one is writing; a status of 286 ends the polling."""
    view = _run_view(request, pk)
    found = queries.writing_stage(view)
    rows, unreadable = [], ""
    try:
        rows = files.newest_rows(found[0], NEWEST) if found else []
    except (StoreError, UserError, OSError) as error:
        unreadable = f"What it wrote last cannot be read ({error})."
    context = {
        "run": view.run,
        "unreadable": unreadable,
        "stage": found[0] if found else None,
        "newest": [GlimpseView.of(row, found[1]) for row in rows] if found else [],
    }
    status = STOP_POLLING if view.is_final else 200
    return render(request, "runs/_latest.html", context, status=status)


@require_safe
def examples(request: HttpRequest, pk: int, which: str) -> HttpResponse:
    """Some kept or dropped traces of the run's corpus, with the reason for each drop."""
    wanted: Literal["kept", "dropped"]
    if which == "kept":
        wanted = "kept"
    elif which == "dropped":
        wanted = "dropped"
    else:
        raise Http404
    view = _run_view(request, pk)
    stage = queries.filter_stage(view)
    if stage is None:
        raise Http404
    offset = query_number(request, "offset") or 0
    rows = files.read_corpus_rows(stage, wanted, EXAMPLES + 1, offset)
    thinking = view.run.config["thinking"]
    context = {
        "run": view.run,
        "which": which,
        "examples": [ExampleView.of(row, thinking) for row in rows[:EXAMPLES]],
        "offset": offset,
        "previous": max(offset - EXAMPLES, 0) if offset else None,
        "next": offset + EXAMPLES if len(rows) > EXAMPLES else None,
    }
    part = "runs/_examples.html" if request.headers.get("hx-request") else "runs/examples.html"
    return render(request, part, context)


def _managed_run(request: HttpRequest, pk: int) -> Run:
    """The run, where whoever asks may decide about it."""
    user = signed_in(request)
    run = get_object_or_404(seen_by(user, Run.objects.all()), pk=pk)
    if not may_manage(user, run):
        raise PermissionDenied("Only its owner and admins of its project decide about a run.")
    return run


@require_POST
def cancel(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask the run to stop; its worker ends the children within a heartbeat."""
    run = _managed_run(request, pk)
    try:
        with transaction.atomic():
            services.cancel_run(run)
            audit.record(signed_in(request), "run.cancel", run)
    except UserError as error:
        messages.error(request, error.sentence)
    return redirect(run)


@require_POST
def retry(request: HttpRequest, pk: int) -> HttpResponse:
    """Go on after what was accepted."""
    run = _managed_run(request, pk)
    try:
        with transaction.atomic():
            services.retry_run(run)
            audit.record(signed_in(request), "run.retry", run)
    except UserError as error:
        messages.error(request, error.sentence)
    return redirect(run)

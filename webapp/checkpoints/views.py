"""Checkpoints: the list, one of them, its lineage, card and tar."""

from __future__ import annotations

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from webapp.checkpoints import ancestry, cards, details, drawn, queries
from webapp.checkpoints.forms import DetailsForm
from webapp.checkpoints.lineage import lineage_of
from webapp.checkpoints.moving import places_to_move
from webapp.core.errors import UserError
from webapp.core.text import storable
from webapp.core.users import signed_in
from webapp.projects.access import (
    ELSEWHERE,
    may_manage,
    may_use,
    seen_by,
    seen_projects,
    works_somewhere,
)
from webapp.runs.cost_views import of_checkpoint
from webapp.runs.models import Run

PAGE = 50


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    """The checkpoints that one sees; the archived ones on a list of their own."""
    viewer = signed_in(request)
    archived, tag = "archived" in request.GET, storable(request.GET.get("tag", ""))[:40]
    page = Paginator(queries.checkpoints(viewer, archived=archived, tag=tag), PAGE)
    context = {
        "page": page.get_page(request.GET.get("page")),
        "archived": archived,
        "tag": tag,
        "tags": queries.tags(viewer),
        "archived_count": queries.archived_count(viewer),
        "seen": seen_projects(viewer),
        "may_add": works_somewhere(viewer),
    }
    return render(request, "checkpoints/index.html", context)


@require_safe
def detail(request: HttpRequest, pk: int) -> HttpResponse:
    """One checkpoint: facts, lineage, evaluations, and what can be done next."""
    viewer = signed_in(request)
    seen = seen_projects(viewer)
    checkpoint = get_object_or_404(queries.one(viewer), pk=pk)
    graph = ancestry.graph_of_checkpoint(checkpoint, seen)
    evaluations = list(queries.evaluations_of(viewer, checkpoint))
    context = {
        "checkpoint": checkpoint,
        "undecontaminated": bool(queries.undecontaminated([checkpoint.pk])),
        "evaluations": evaluations,
        "versus_parent": queries.versus_parent(viewer, checkpoint, evaluations),
        "links": lineage_of(checkpoint, seen),
        "costs": of_checkpoint(checkpoint, viewer),
        "graph": graph,
        "drawing": drawn.draw(graph),
        "has_card": cards.has_card(checkpoint, seen),
        "seen": seen,
        "elsewhere": ELSEWHERE,
        "may_manage": may_manage(viewer, checkpoint),
        "may_use": may_use(viewer, checkpoint.project),
    }
    return render(request, "checkpoints/detail.html", context)


@require_safe
def run_lineage(request: HttpRequest, pk: int) -> HttpResponse:
    """What a run used and what it made, as a part of its page or a page of its own."""
    viewer = signed_in(request)
    run = get_object_or_404(seen_by(viewer, Run.objects.all()), pk=pk)
    graph = ancestry.graph_of_run(run, seen_projects(viewer))
    part = request.headers.get("hx-request")
    template = "checkpoints/_graph.html" if part else "checkpoints/run_lineage.html"
    return render(request, template, {"run": run, "graph": graph, "drawing": drawn.draw(graph)})


@require_http_methods(["GET", "HEAD", "POST"])
def edit(request: HttpRequest, pk: int) -> HttpResponse:
    """Notes, tags and licences, by whoever decides about it; its project, by who may move it."""
    user = signed_in(request)
    checkpoint = get_object_or_404(queries.one(user), pk=pk)
    if not may_manage(user, checkpoint):
        raise PermissionDenied
    known = {
        "notes": checkpoint.notes,
        "tags": ", ".join(checkpoint.tags),
        "licence": checkpoint.licence,
        "prompts_licence": checkpoint.prompts_licence,
        "project": checkpoint.project_id,
    }
    places = places_to_move(user, checkpoint)
    form = DetailsForm(request.POST or None, initial=known, places=places)
    if request.method == "POST" and form.is_valid():
        try:
            details.save(user, checkpoint, form.cleaned_data)
        except UserError as error:
            form.add_error(error.field, error.sentence)
        else:
            messages.success(request, "Saved.")
            return redirect(checkpoint)
    context = {"checkpoint": checkpoint, "form": form}
    status = 400 if request.method == "POST" else 200
    return render(request, "checkpoints/edit.html", context, status=status)


@require_safe
def card(request: HttpRequest, pk: int) -> HttpResponse:
    """A student's model card, as a page or, with ``?download``, as README.md."""
    viewer = signed_in(request)
    checkpoint = get_object_or_404(queries.one(viewer), pk=pk)
    try:
        text = cards.card_of(checkpoint, seen_projects(viewer))
    except UserError as error:
        messages.error(request, error.sentence)
        return redirect(checkpoint)
    if "download" in request.GET:
        response = HttpResponse(text, content_type="text/markdown; charset=utf-8")
        response["Content-Disposition"] = 'attachment; filename="README.md"'
        return response
    return render(request, "checkpoints/card.html", {"checkpoint": checkpoint, "card": text})


@require_safe
def tar(request: HttpRequest, pk: int) -> HttpResponse | StreamingHttpResponse:
    """The checkpoint with its card as one tar, streamed."""
    viewer = signed_in(request)
    checkpoint = get_object_or_404(queries.one(viewer), pk=pk)
    try:
        name, size, blocks = cards.tar_of(checkpoint, seen_projects(viewer))
    except UserError as error:
        messages.error(request, error.sentence)
        return redirect(checkpoint)
    response = StreamingHttpResponse(
        blocks if request.method == "GET" else (), content_type="application/x-tar"
    )
    response["Content-Length"] = str(size)
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response

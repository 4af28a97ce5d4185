"""Checkpoints: the list, and one of them."""

from __future__ import annotations

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_safe

from webapp.checkpoints import queries
from webapp.checkpoints.lineage import lineage_of

PAGE = 50


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    """All checkpoints."""
    page = Paginator(queries.checkpoints(), PAGE).get_page(request.GET.get("page"))
    return render(request, "checkpoints/index.html", {"page": page})


@require_safe
def detail(request: HttpRequest, pk: int) -> HttpResponse:
    """One checkpoint: facts, lineage, evaluations."""
    checkpoint = get_object_or_404(queries.checkpoints(), pk=pk)
    context = {
        "checkpoint": checkpoint,
        "undecontaminated": checkpoint.pk in queries.undecontaminated(),
        "evaluations": list(queries.evaluations_of(checkpoint)),
        "links": lineage_of(checkpoint),
        "children": list(checkpoint.children.only("pk", "name")),
    }
    return render(request, "checkpoints/detail.html", context)

"""Benchmarks and prompt sets: what is installed, and its problems."""

from __future__ import annotations

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_safe

from webapp.benchmarks import queries
from webapp.benchmarks.models import PromptSet

PAGE = 25


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    """Installed benchmarks and prompt sets."""
    context = {
        "benchmarks": list(queries.benchmarks()),
        "prompt_sets": list(PromptSet.objects.order_by("name", "-created_at")),
    }
    return render(request, "benchmarks/index.html", context)


@require_safe
def detail(request: HttpRequest, pk: int) -> HttpResponse:
    """One benchmark's problems, paged."""
    benchmark = get_object_or_404(queries.benchmarks(), pk=pk)
    page = Paginator(benchmark.problems.order_by("position"), PAGE).get_page(
        request.GET.get("page")
    )
    return render(request, "benchmarks/detail.html", {"benchmark": benchmark, "page": page})


@require_safe
def prompt_set(request: HttpRequest, pk: int) -> HttpResponse:
    """One prompt set's problems, paged; they are read from the store."""
    found = get_object_or_404(PromptSet, pk=pk)
    page = Paginator(range(found.prompt_count), PAGE).get_page(request.GET.get("page"))
    offset = (page.number - 1) * PAGE
    prompts = queries.prompt_rows(found, offset=offset, limit=PAGE)
    context = {"prompt_set": found, "page": page, "prompts": prompts, "offset": offset}
    return render(request, "benchmarks/prompt_set.html", context)

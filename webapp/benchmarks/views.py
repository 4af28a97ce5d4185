"""Benchmarks and prompt sets: what is installed, and its problems."""

from __future__ import annotations

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from webapp.benchmarks import queries
from webapp.benchmarks.adding import add_yardstick
from webapp.benchmarks.forms import ContestForm
from webapp.benchmarks.models import Contest, PromptSet, RatingPopulation
from webapp.core.errors import UserError
from webapp.core.users import signed_in
from webapp.projects.access import works_somewhere

PAGE = 25


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    """Installed benchmarks and prompt sets."""
    context = {
        "benchmarks": list(queries.benchmarks(signed_in(request))),
        "prompt_sets": list(PromptSet.objects.order_by("name", "-created_at")),
        "contests": Contest.objects.count(),
    }
    return render(request, "benchmarks/index.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def contests(request: HttpRequest) -> HttpResponse:
    """What programs are rated by; an administrator adds to it."""
    may_add = signed_in(request).is_staff
    form = ContestForm()
    if request.method == "POST":
        if not may_add:
            raise PermissionDenied
        form = ContestForm(request.POST, request.FILES)
        if form.is_valid() and _install(request, form):
            return redirect("benchmarks:contests")
    context = {
        "contests": list(Contest.objects.all()),
        "populations": list(RatingPopulation.objects.all()),
        "form": form if may_add else None,
    }
    status = 400 if form.is_bound else 200
    return render(request, "benchmarks/contests.html", context, status=status)


def _install(request: HttpRequest, form: ContestForm) -> bool:
    """Install what the form read, rate what it concerns; False where it cannot be used."""
    try:
        added = add_yardstick(signed_in(request), form.cleaned_data["yardstick"])
    except UserError as error:
        form.add_error("file", error.sentence)
        return False
    for contest in added.contests:
        messages.success(request, f"{contest.name} is installed.")
    if (row := added.population) is not None:
        messages.success(request, f"Percentiles refer to {row.name} now: {row.size:,} ratings.")
    if count := added.rated_again:
        messages.info(request, f"{count} evaluation{'' if count == 1 else 's'} rated again.")
    return True


@require_safe
def detail(request: HttpRequest, pk: int) -> HttpResponse:
    """One benchmark's problems, paged."""
    viewer = signed_in(request)
    benchmark = get_object_or_404(queries.benchmarks(viewer), pk=pk)
    page = Paginator(benchmark.problems.order_by("position"), PAGE).get_page(
        request.GET.get("page")
    )
    context = {
        "benchmark": benchmark,
        "page": page,
        "may_launch": works_somewhere(viewer),
    }
    return render(request, "benchmarks/detail.html", context)


@require_safe
def prompt_set(request: HttpRequest, pk: int) -> HttpResponse:
    """One prompt set's problems, paged; they are read from the store."""
    found = get_object_or_404(PromptSet, pk=pk)
    page = Paginator(range(found.prompt_count), PAGE).get_page(request.GET.get("page"))
    offset = (page.number - 1) * PAGE
    prompts = queries.prompt_rows(found, offset=offset, limit=PAGE)
    context = {
        "prompt_set": found,
        "page": page,
        "prompts": prompts,
        "offset": offset,
        "may_launch": works_somewhere(signed_in(request)),
    }
    return render(request, "benchmarks/prompt_set.html", context)

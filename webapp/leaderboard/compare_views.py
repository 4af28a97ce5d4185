"""Comparing evaluations: figures side by side, problem by problem, and one problem's texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import render
from django.views.decorators.http import require_safe

from webapp.benchmarks.models import Problem
from webapp.core.models import User
from webapp.core.numbers import query_number
from webapp.core.users import signed_in
from webapp.leaderboard import compare, compare_charts, costs, heatmap, side_by_side
from webapp.projects.access import may_use, works_somewhere
from webapp.runs.models import Evaluation


def _wanted(query: QueryDict) -> tuple[list[int], list[str]]:
    """(keys in ``?e=1&e=2`` or ``?e=1,2``, what there is not a key)."""
    given = [part.strip() for value in query.getlist("e") for part in value.split(",")]
    numbers = [p for p in given if p.isascii() and p.isdigit() and len(p) < 12]
    return [int(p) for p in numbers], [p for p in given if p and p not in numbers]


def _chosen(request: HttpRequest) -> tuple[list[Evaluation], Evaluation | None, list[str]]:
    """(evaluations, baseline, what has to be said of the choice)."""
    user = signed_in(request)
    wanted, odd = _wanted(request.GET)
    found, gone = compare.find(user, wanted[:100])
    said = [f"“{part[:40]}” is no evaluation's number and was left out." for part in odd[:3]]
    said += [f"Evaluation {pk} has no figures here and was left out." for pk in gone[:3]]
    if len(found) > compare.MOST:
        said.append(
            f"At most {compare.MOST} evaluations stand side by side; the first {compare.MOST} do."
        )
        found = found[: compare.MOST]
    if len(found) == 1:
        found = compare.with_parent(user, found[0])
    if len(found) < compare.FEWEST:
        return found, None, said
    return found, compare.baseline_of(found, query_number(request, "base")), said


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    """Two to eight evaluations side by side; fewer are asked to be chosen."""
    user = signed_in(request)
    chosen, baseline, said = _chosen(request)
    context: dict[str, Any] = {
        "chosen": chosen,
        "others": [] if len(chosen) >= compare.MOST else compare.others(user, chosen),
        "said": said,
        "most": compare.MOST,
    }
    if baseline is None:
        context["may_launch"] = works_somewhere(user)
        return render(request, "leaderboard/compare_choose.html", context)
    show = _one_of(request.GET.get("show"), heatmap.SHOWS)
    sort = _one_of(request.GET.get("sort"), heatmap.SORTS)
    found = compare.compare(chosen, baseline)
    rows = heatmap.rows(found, show, sort)
    page = Paginator(rows, heatmap.ROWS_PER_PAGE).get_page(request.GET.get("page"))
    following = _next(found)
    contrasts = [score.contrast.paired for score in found.scores if score.contrast]
    context |= {
        "found": found,
        "baseline": baseline,
        "reach": max((abs(x or 0) for p in contrasts for x in (p.low, p.high, p.difference)),
                     default=0),
        "bounded": any(paired.low is not None for paired in contrasts),
        "drawn": [score for score in found.scores if score.value is not None],
        "curves": compare_charts.tables(compare.curves(found), found),
        "tokens": compare_charts.tokens_figure(found.scores),
        "groups": compare.groups(found),
        "costs": costs.costs(user, found),
        "currency": settings.RETORT_CURRENCY,
        "next": following,
        "may_evaluate": following is not None and _may_evaluate(user, following),
        "page": page,
        "rows": heatmap.with_gold(list(page)),
        "show": show,
        "shows": heatmap.SHOWS,
        "sort": sort,
        "sorts": heatmap.SORTS,
        "query": _query(chosen, baseline),
        "kept": [(key, value) for key, value in (("show", show), ("sort", sort))],
    }  # fmt: skip
    return render(request, "leaderboard/compare.html", context)


def _next(found: compare.Comparison) -> compare.Side | None:
    """Whom to go on with: one that no other has a higher score than; None without scores."""
    scored = [(score.value, score.side) for score in found.scores if score.value is not None]
    return max(scored, key=lambda each: each[0])[1] if scored else None


def _may_evaluate(user: User, side: compare.Side) -> bool:
    checkpoint = side.evaluation.checkpoint
    return checkpoint is not None and may_use(user, checkpoint.project)


def _one_of(given: str | None, known: tuple[str, ...]) -> str:
    return given if given in known else known[0]


def _query(chosen: Sequence[Evaluation], baseline: Evaluation) -> str:
    """The choice as a query string: what a link to this comparison carries."""
    return f"e={','.join(str(each.pk) for each in chosen)}&base={baseline.pk}"


def _found(request: HttpRequest) -> compare.Comparison:
    """The comparison of a download; raises Http404 where there are not two evaluations."""
    chosen, baseline, _ = _chosen(request)
    if baseline is None:
        raise Http404("Name at least two evaluations that have figures: ?e=1,2")
    return compare.compare(chosen, baseline)


@require_safe
def problems_csv(request: HttpRequest) -> HttpResponse:
    """Every shared problem as a line."""
    return _csv(heatmap.as_csv(_found(request)), "comparison-problems.csv")


@require_safe
def differences_csv(request: HttpRequest) -> HttpResponse:
    """The scores and their differences as lines."""
    return _csv(heatmap.differences_csv(_found(request)), "comparison.csv")


def _csv(text: str, name: str) -> HttpResponse:
    response = HttpResponse(text, content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


@require_safe
def problem(request: HttpRequest, problem: int) -> HttpResponse:
    """One problem: a sample of every evaluation, side by side."""
    chosen, baseline, said = _chosen(request)
    if baseline is None:
        raise Http404("Name at least two evaluations that have figures: ?e=1,2")
    samples = {
        letter: number
        for letter in "ABCDEFGH"
        if (number := query_number(request, f"sample{letter}")) is not None
    }
    try:
        view = side_by_side.view(chosen, baseline, problem, samples)
    except Problem.DoesNotExist:
        raise Http404 from None
    context = {
        "view": view,
        "said": said,
        "query": _query(chosen, baseline),
        "baseline": baseline,
    }
    return render(request, "leaderboard/compare_problem.html", context)

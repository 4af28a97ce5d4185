"""Benchmarks and prompt sets: the installation's, read by everybody who is signed in."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from pydantic import Field

from webapp.api.framework import Query, Router, Schema
from webapp.api.paging import Page, Paged, cut, page
from webapp.benchmarks.models import Benchmark, Contest, PromptSet
from webapp.benchmarks.queries import prompt_rows

router = Router(tags=["benchmarks"])
prompt_sets = Router(tags=["prompt sets"])


class BenchmarkOut(Schema):
    """One version of a benchmark."""

    id: int
    name: str
    title: str
    content_hash: str
    grader: str
    problem_count: int
    source: str
    created_at: datetime


class ProblemOut(Schema):
    """A question with its reference answer."""

    id: int
    problem_id: str
    position: int
    problem: str
    answer: str
    subject: str
    level: str
    options: list[str]


class ContestOut(Schema):
    """A contest that programs are ranked in."""

    id: int
    contest_id: str
    name: str
    scoring: str
    participants: int
    problem_count: int


class PromptSetOut(Schema):
    """One version of a prompt set."""

    id: int
    name: str
    content_hash: str
    prompt_count: int
    created_at: datetime


class PromptOut(Schema):
    """A prompt as the set's file holds it."""

    id: str
    problem: str
    answer: str
    subject: str | None
    level: str | None


class FewRows(Paged):
    """Which page of long rows."""

    limit: int = Field(20, ge=1, le=100, description="Rows at most.")


@router.get("", response=Page[BenchmarkOut])
def benchmarks_list(request: HttpRequest, wanted: Query[Paged]) -> dict[str, Any]:
    """Every version of every benchmark, the newest first."""
    return page(Benchmark.objects.all(), wanted)


@router.get("/contests", response=Page[ContestOut])
def contests_list(request: HttpRequest, wanted: Query[Paged]) -> dict[str, Any]:
    """The contests that programs are rated by."""
    return page(Contest.objects.all(), wanted)


@router.get("/{int:pk}", response=BenchmarkOut)
def benchmarks_one(request: HttpRequest, pk: int) -> Benchmark:
    """One version of a benchmark."""
    return get_object_or_404(Benchmark, pk=pk)


@router.get("/{int:pk}/problems", response=Page[ProblemOut])
def benchmarks_problems(request: HttpRequest, pk: int, wanted: Query[FewRows]) -> dict[str, Any]:
    """Its problems in their order."""
    rows = get_object_or_404(Benchmark, pk=pk).problems.all()
    return page(rows, wanted, key="position", newest=False)


@prompt_sets.get("", response=Page[PromptSetOut])
def prompt_sets_list(request: HttpRequest, wanted: Query[Paged]) -> dict[str, Any]:
    """Every version of every prompt set, the newest first."""
    return page(PromptSet.objects.all(), wanted)


@prompt_sets.get("/{int:pk}", response=PromptSetOut)
def prompt_sets_one(request: HttpRequest, pk: int) -> PromptSet:
    """One version of a prompt set."""
    return get_object_or_404(PromptSet, pk=pk)


@prompt_sets.get("/{int:pk}/prompts", response=Page[PromptOut])
def prompt_sets_prompts(request: HttpRequest, pk: int, wanted: Query[FewRows]) -> dict[str, Any]:
    """Its prompts in their order."""
    found = get_object_or_404(PromptSet, pk=pk)
    begin = min(wanted.after or 0, found.prompt_count)
    rows = prompt_rows(found, offset=begin, limit=wanted.limit + 1)
    return cut(rows, wanted, begin + wanted.limit)

"""Benchmarks and prompt sets: the installation's. Whoever is signed in reads them; its
administrators add to them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from django.utils.datastructures import MultiValueDict
from pydantic import Field

from webapp.api.auth import ADMIN, require_staff
from webapp.api.forms import cleaned, only_known
from webapp.api.framework import File, Form, Query, Router, Schema, UploadedFile
from webapp.api.paging import Page, Paged, cut, page
from webapp.api.schemas import In, Name
from webapp.benchmarks import adding
from webapp.benchmarks.forms import ContestForm
from webapp.benchmarks.models import Benchmark, Contest, PromptSet, RatingPopulation
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


class PopulationOut(Schema):
    """The ratings that percentiles refer to; the newest one counts."""

    id: int
    name: str
    size: int
    created_at: datetime


class BenchmarkIn(In):
    """Which benchmark the file holds."""

    name: Name = Field(description="As it is known here: aime_2024.")


class PromptSetIn(In):
    """What the set is called, and how its file is read."""

    name: Name
    like: Name = Field("math_500", description="The benchmark whose columns the file has.")


class YardstickIn(In):
    """What the file is."""

    kind: Literal["contest", "population"] = "contest"


class AddedOut(Schema):
    """What a contest bundle, or a population, brought."""

    contests: list[ContestOut]
    population: PopulationOut | None
    rated_again: int = Field(description="Evaluations of programs.")


class FewRows(Paged):
    """Which page of long rows."""

    limit: int = Field(20, ge=1, le=100, description="Rows at most.")


@router.get("", response=Page[BenchmarkOut])
def benchmarks_list(request: HttpRequest, wanted: Query[Paged]) -> dict[str, Any]:
    """Every version of every benchmark, the newest first."""
    return page(Benchmark.objects.all(), wanted)


@router.post("", response={201: BenchmarkOut}, auth=ADMIN)
def benchmarks_add(request: HttpRequest, body: Form[BenchmarkIn], file: File[UploadedFile]) -> Any:
    """Install a version of a benchmark from a file (.jsonl, .jsonl.gz, .parquet, .csv, .zip).

    The same problems give the version that is there.
    """
    only_known(request, BenchmarkIn)
    return adding.add_benchmark(require_staff(request), body.name, file)


@router.get("/contests", response=Page[ContestOut])
def contests_list(request: HttpRequest, wanted: Query[Paged]) -> dict[str, Any]:
    """The contests that programs are rated by."""
    return page(Contest.objects.all(), wanted)


@router.post("/contests", response={201: AddedOut}, auth=ADMIN)
def contests_add(request: HttpRequest, body: Form[YardstickIn], file: File[UploadedFile]) -> Any:
    """Install a contest bundle, or the ratings that percentiles refer to (.json, .json.gz).

    Evaluations of programs are rated again. A contest whose id is there is replaced.
    """
    person = require_staff(request)
    only_known(request, YardstickIn)
    form = ContestForm(body.model_dump(), MultiValueDict({"file": [file]}))
    return adding.add_yardstick(person, cleaned(form)["yardstick"])


@router.get("/populations", response=Page[PopulationOut])
def populations_list(request: HttpRequest, wanted: Query[Paged]) -> dict[str, Any]:
    """The ratings that percentiles refer to, the newest first."""
    return page(RatingPopulation.objects.all(), wanted)


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


@prompt_sets.post("", response={201: PromptSetOut}, auth=ADMIN)
def prompt_sets_add(request: HttpRequest, body: Form[PromptSetIn], file: File[UploadedFile]) -> Any:
    """Install a version of a prompt set from a file, as a benchmark's is read."""
    only_known(request, PromptSetIn)
    return adding.add_prompt_set(require_staff(request), body.name, body.like, file)


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

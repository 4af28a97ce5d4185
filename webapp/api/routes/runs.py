"""Runs: list, watch, cancel, retry, priority; launching.py starts them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import Http404, HttpRequest
from django.shortcuts import get_object_or_404
from pydantic import Field

from evaluator.errors import StoreError
from webapp.api.auth import WRITE
from webapp.api.framework import Query, Router, Schema
from webapp.api.paging import Page, Paged, cut, page
from webapp.api.schemas import Done, In, Name, Named
from webapp.core import audit
from webapp.core.errors import UserError
from webapp.core.models import User
from webapp.core.users import signed_in
from webapp.housekeeping import removal
from webapp.projects.access import may_manage, seen_by
from webapp.runs import files, queries, services, turns, waiting
from webapp.runs.models import Run, State
from webapp.runs.queries import RunFilter, RunView, StageView
from webapp.runs.texts import GlimpseView
from webapp.runs.views import NEWEST

router = Router(tags=["runs"])

Kind = Literal["distillation", "evaluation", "check"]


class StageOut(Schema):
    """A step of a run."""

    id: int
    position: int
    kind: str
    title: str
    state: State
    done: int = Field(description="Units done.")
    total: int = Field(description="Units in all; 0: not known yet.")
    unit: str
    fraction: float | None = Field(description="Share done; null: not known.")
    tokens: int
    tokens_per_second: float | None
    eta_seconds: float | None
    error: str
    started_at: datetime | None
    finished_at: datetime | None


class RunOut(Schema):
    """A run as lists show it."""

    id: int
    name: str
    kind: Run.Kind
    state: State
    final: bool = Field(description="Nothing changes any more unless somebody retries.")
    project: Named
    owner: str
    priority: int
    error: str
    fraction: float = Field(description="Share done; every stage counts the same.")
    stage: str = Field(description="The title of the stage that is on, failed or next.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class RunDetail(RunOut):
    """A run with its stages."""

    config: dict[str, Any] = Field(description="The resolved recipe, or the protocol.")
    stages: list[StageOut]
    waiting: str = Field(description="Why nothing of it goes on just now; blank: it does.")
    evaluations: list[int]
    products: list[Named] = Field(description="Checkpoints that it made and one sees.")


class LogOut(Schema):
    """The last lines of a stage's child."""

    stage: int
    title: str
    log_tail: str


class GlimpseOut(Schema):
    """The beginning and the end of a completion that has just come."""

    problem_id: str
    sample: int
    beginning: str
    end: str = Field(description="Blank: the beginning is all of it.")
    left_out: int = Field(description="Characters between the two.")
    error: str


class RunsWanted(Paged):
    """Which runs of the list."""

    state: State | None = None
    kind: Run.Kind | None = None
    owner: Name = Field("", description="A user name.")
    project: Name = Field("", description="A project's name.")
    name: Name = Field("", description="A part of its name.")
    archived: bool = False


class Examples(Paged):
    """Which traces."""

    limit: int = Field(5, ge=1, le=50, description="Rows at most.")


class PriorityIn(In):
    """A run's new priority."""

    priority: Annotated[int, Field(ge=turns.LOWEST, le=turns.HIGHEST)]


def managed(request: HttpRequest, pk: int) -> Run:
    """The run, where whoever asks may decide about it. Raises Http404 and PermissionDenied."""
    person = signed_in(request)
    run = get_object_or_404(seen_by(person, Run.objects.all()), pk=pk)
    if not may_manage(person, run):
        raise PermissionDenied
    return run


def seen(request: HttpRequest, pk: int) -> RunView:
    """The run with its stages, where whoever asks may look at it. Raises DoesNotExist."""
    return queries.run_view(pk, signed_in(request))


def out(view: RunView) -> dict[str, Any]:
    """A run as lists show it."""
    run, current = view.run, view.current
    return {
        "id": run.pk, "name": run.name, "kind": run.kind, "state": run.state,
        "final": view.is_final, "project": run.project, "owner": run.owner.get_username(),
        "priority": run.priority, "error": view.error, "fraction": view.fraction,
        "stage": "" if current is None else current.stage.title, "created_at": run.created_at,
        "started_at": run.started_at, "finished_at": run.finished_at,
    }  # fmt: skip


def _stages(views: Sequence[StageView]) -> list[dict[str, Any]]:
    names = ("id", "position", "kind", "title", "state", "done", "total", "unit", "tokens",
             "tokens_per_second", "error", "started_at", "finished_at")  # fmt: skip
    return [
        {name: getattr(view.stage, name) for name in names}
        | {"fraction": view.fraction, "eta_seconds": view.eta_seconds}
        for view in views
    ]


def detail(view: RunView, person: User) -> dict[str, Any]:
    """A run with its stages."""
    run = view.run
    return out(view) | {
        "config": run.config,
        "stages": _stages(view.stages),
        "waiting": "" if view.is_final else waiting.reason(run),
        "evaluations": list(run.evaluations.order_by("pk").values_list("pk", flat=True)),
        "products": list(seen_by(person, run.products.only("pk", "name").order_by("pk"))),
    }


@router.get("", response=Page[RunOut])
def runs_list(request: HttpRequest, wanted: Query[RunsWanted]) -> dict[str, Any]:
    """Runs, the newest first."""
    chosen = RunFilter(
        state=str(wanted.state or ""), kind=str(wanted.kind or ""), owner=wanted.owner,
        project=wanted.project, name=wanted.name, archived=wanted.archived,
    )  # fmt: skip
    rows = queries.runs(chosen, signed_in(request))
    found = page(rows, wanted)
    return {**found, "items": [out(queries.view_of(run)) for run in found["items"]]}


@router.get("/{int:pk}", response=RunDetail)
def runs_one(request: HttpRequest, pk: int) -> dict[str, Any]:
    """A run with its stages and how far each is."""
    return detail(seen(request, pk), signed_in(request))


@router.get("/{int:pk}/log", response=list[LogOut])
def runs_log(request: HttpRequest, pk: int) -> list[dict[str, Any]]:
    """The last lines of each stage that wrote any, the present one first."""
    return [
        {"stage": each.stage.pk, "title": each.stage.title, "log_tail": each.stage.log_tail}
        for each in seen(request, pk).logs
    ]


@router.get("/{int:pk}/latest", response=list[GlimpseOut])
def runs_latest(request: HttpRequest, pk: int) -> list[GlimpseView]:
    """What the run's models wrote last, the newest first; empty while none is writing."""
    found = queries.writing_stage(seen(request, pk))
    if found is None:
        return []
    stage, thinking = found
    try:
        return [GlimpseView.of(row, thinking) for row in files.newest_rows(stage, NEWEST)]
    except (StoreError, OSError) as error:
        raise UserError(f"run: what it wrote last cannot be read ({error}).", "run") from None


@router.get("/{int:pk}/examples/{which}", response=Page[dict[str, Any]])
def runs_examples(
    request: HttpRequest, pk: int, which: Literal["kept", "dropped"], wanted: Query[Examples]
) -> dict[str, Any]:
    """Traces that the run's corpus kept, or dropped with the reason."""
    stage = queries.filter_stage(seen(request, pk))
    if stage is None:
        raise Http404
    begin = wanted.after or 0
    rows = files.read_corpus_rows(stage, which, wanted.limit + 1, begin)
    return cut(rows, wanted, begin + wanted.limit)


@router.post("/{int:pk}/cancel", response=Done, auth=WRITE)
def runs_cancel(request: HttpRequest, pk: int) -> dict[str, str]:
    """Cancel a run: its workers end what they do for it."""
    run = managed(request, pk)
    with transaction.atomic():
        services.cancel_run(run)
        audit.record(signed_in(request), "run.cancel", run)
    return {"sentence": "The run is cancelled."}


@router.post("/{int:pk}/retry", response=Done, auth=WRITE)
def runs_retry(request: HttpRequest, pk: int) -> dict[str, str]:
    """Go on with a run that ended, after what was accepted."""
    run = managed(request, pk)
    with transaction.atomic():
        services.retry_run(run)
        audit.record(signed_in(request), "run.retry", run)
    return {"sentence": "The run goes on."}


@router.put("/{int:pk}/priority", response=Done, auth=WRITE)
def runs_priority(request: HttpRequest, pk: int, body: PriorityIn) -> dict[str, str]:
    """Have its open shards claimed before, or after, those of other runs."""
    run, person = managed(request, pk), signed_in(request)
    with transaction.atomic():
        turns.set_priority(run, body.priority, by=person)
        audit.record(person, "run.priority", run, priority=body.priority)
    return {"sentence": f"The run has priority {body.priority} now."}


@router.post("/{int:pk}/{act}", response=Done, auth=WRITE)
def runs_keep(request: HttpRequest, pk: int, act: Literal["archive", "restore"]) -> dict[str, str]:
    """Take a run that has ended out of lists, or put it back."""
    run = managed(request, pk)
    with transaction.atomic():
        removal.set_archived(run, archived=act == "archive")
        audit.record(signed_in(request), f"run.{act}", run)
    return {"sentence": "It is archived." if act == "archive" else "It is taken back."}


@router.delete("/{int:pk}", response={204: None}, auth=WRITE)
def runs_delete(request: HttpRequest, pk: int) -> None:
    """Delete a run that has ended, with its evaluations and files."""
    run, person = managed(request, pk), signed_in(request)
    with transaction.atomic():
        audit.record(person, "run.delete", run)
        removal.delete_run(run, by=person)

"""Hosts and workers; whose turn it is."""

from __future__ import annotations

from typing import Annotated, Any

from django.db import transaction
from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from pydantic import Field

from webapp.api.auth import ADMIN, require_staff
from webapp.api.framework import Query, Router, Schema
from webapp.api.paging import Page, Paged, page
from webapp.api.schemas import Done, In
from webapp.core import accounts, audit
from webapp.core.models import User
from webapp.core.users import signed_in
from webapp.runs import hosts, turns
from webapp.runs.hosts import HostView, WorkerView
from webapp.runs.models import WorkerHeartbeat

router = Router(tags=["workers"])
people = Router(tags=["people"])


class WorkerOut(Schema):
    """A worker, and what it does as far as one may see it."""

    id: int
    name: str
    queues: list[str]
    draining: bool
    silent: bool = Field(description="It is probably gone.")
    seconds: float = Field(description="Since its last sign of life.")
    doing: str
    run: int | None = Field(description="Whose shard it does, where one sees the run.")


class DeviceOut(Schema):
    """A CUDA device."""

    name: str
    model: str
    memory_total_bytes: int | None
    memory_used_bytes: int | None
    utilisation_percent: int | None
    run: int | None


class HostOut(Schema):
    """A host with its workers and devices."""

    name: str
    workers: list[WorkerOut]
    devices: list[DeviceOut]


class Unserved(Schema):
    """A queue in which stages wait that no living worker serves."""

    queue: str
    stages: int


class WorkersOut(Schema):
    """All hosts."""

    hosts: list[HostOut]
    unserved: list[Unserved]


class DrainIn(In):
    """Whether it ends what it does and takes nothing more."""

    draining: bool


class PersonOut(Schema):
    """An account, as administrators see it."""

    id: int
    username: str
    administrator: bool
    active: bool
    max_running_shards: int | None = Field(description="null: as for everybody.")


class LimitIn(In):
    """Shards of a person's runs done at a time; null: as for everybody."""

    limit: Annotated[int, Field(ge=0, le=turns.MOST_SHARDS)] | None


class ActiveIn(In):
    """Whether somebody may sign in."""

    active: bool


def _worker(view: WorkerView) -> dict[str, Any]:
    return {
        "id": view.worker.pk, "name": view.worker.name, "queues": view.queues,
        "draining": view.worker.draining, "silent": view.is_silent, "seconds": view.seconds,
        "doing": view.doing, "run": None if view.shard is None else view.shard.stage.run_id,
    }  # fmt: skip


def _host(view: HostView) -> dict[str, Any]:
    names = ("name", "model", "memory_total_bytes", "memory_used_bytes", "utilisation_percent")
    return {
        "name": view.name,
        "workers": [_worker(each) for each in view.workers],
        "devices": [
            {name: getattr(device, name) for name in names}
            | {"run": None if stage is None else stage.run_id}
            for device, stage in view.devices
        ],
    }


@router.get("", response=WorkersOut)
def workers_list(request: HttpRequest) -> dict[str, Any]:
    """Every host with its workers and devices, and what nobody serves."""
    person = signed_in(request)
    return {
        "hosts": [_host(each) for each in hosts.overview(person)],
        "unserved": [
            {"queue": queue, "stages": stages} for queue, stages in hosts.unserved(person)
        ],
    }


@router.put("/{int:pk}/drain", response=Done, auth=ADMIN)
def workers_drain(request: HttpRequest, pk: int, body: DrainIn) -> dict[str, str]:
    """Let a worker end what it does and take nothing more, or take it back to work."""
    person = require_staff(request)
    worker = get_object_or_404(WorkerHeartbeat, pk=pk)
    with transaction.atomic():
        hosts.drain(worker, draining=body.draining)
        audit.record(person, "worker.drain" if body.draining else "worker.take_back", worker)
    return {"sentence": f"{worker} {'takes no further shard' if body.draining else 'works'}."}


@people.get("", response=Page[PersonOut], auth=ADMIN)
def people_list(request: HttpRequest, wanted: Query[Paged]) -> dict[str, Any]:
    """Everybody who has an account."""
    require_staff(request)
    listed = page(User.objects.all(), wanted)
    return {**listed, "items": [_person(each) for each in listed["items"]]}


@people.put("/{int:pk}/limit", response=PersonOut, auth=ADMIN)
def people_limit(request: HttpRequest, pk: int, body: LimitIn) -> dict[str, Any]:
    """Change how many shards of a person's runs are done at a time."""
    by, person = require_staff(request), get_object_or_404(User, pk=pk)
    with transaction.atomic():
        turns.set_limit(person, body.limit, by=by)
        audit.record(by, "account.limit", person, limit=body.limit)
    person.refresh_from_db()
    return _person(person)


@people.put("/{int:pk}/active", response=PersonOut, auth=ADMIN)
def people_active(request: HttpRequest, pk: int, body: ActiveIn) -> dict[str, Any]:
    """Let nobody sign in with an account, or let them again; sessions and tokens end at once."""
    by, person = require_staff(request), get_object_or_404(User, pk=pk)
    if body.active:
        accounts.activate(by, person)
    else:
        accounts.deactivate(by, person)
    return _person(person)


def _person(row: User) -> dict[str, Any]:
    return {
        "id": row.pk, "username": row.get_username(), "administrator": row.is_staff,
        "active": row.is_active, "max_running_shards": row.max_running_shards,
    }  # fmt: skip

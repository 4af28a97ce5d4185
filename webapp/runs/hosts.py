"""Hosts and workers as rows: signs of life, draining, and whose turn the upkeep is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db.models import Count, DurationField, ExpressionWrapper, F, Value
from django.db.models.functions import Now

from webapp.core.models import User
from webapp.projects.access import seen_by, seen_projects
from webapp.runs import ledger
from webapp.runs.ledger import Cost
from webapp.runs.models import (
    Device,
    DeviceRequest,
    Shard,
    Stage,
    State,
    Upkeep,
    WorkerHeartbeat,
)

ROUND = "reap"
SILENT_SECONDS = 30.0  # three signs of life that did not come
LIVE = (State.QUEUED, State.RUNNING)
_BUSY = "busy"
FORGET = timedelta(days=1)  # a worker, or a device, of which nothing was heard for so long


def greet(worker: str, host: str, queues: Sequence[str]) -> None:
    """A worker begins: its row says what it is."""
    WorkerHeartbeat.objects.update_or_create(
        name=worker,
        defaults={
            "host": host, "queues": ",".join(queues), "doing": "", "draining": False,
            "started_at": Now(), "seen_at": Now(),
        },
    )  # fmt: skip


def beat(worker: str, doing: str | None = None) -> None:
    """Record the worker's sign of life, and what it does where that is given."""
    values: dict[str, Any] = {"seen_at": Now()}
    if doing is not None:
        values["doing"] = doing[:300]
    WorkerHeartbeat.objects.update_or_create(name=worker, defaults=values)


def forget(worker: str) -> None:
    """The worker has stopped as it was told to."""
    WorkerHeartbeat.objects.filter(name=worker).delete()


def drain(worker: WorkerHeartbeat, *, draining: bool) -> None:
    """Let the worker end what it does and claim nothing more, or take it back to work."""
    WorkerHeartbeat.objects.filter(pk=worker.pk).update(draining=draining)


def takes_turn(period_seconds: float) -> bool:
    """Whether this caller does the present round of upkeep; one caller per period does.

    So the reaper needs no process of its own that would have to live, and a hundred workers reap
    no more often than one.
    """
    following = Now() + Value(timedelta(seconds=period_seconds))
    if Upkeep.objects.filter(name=ROUND, due_at__lte=Now()).update(due_at=following):
        return True
    _, created = Upkeep.objects.get_or_create(name=ROUND, defaults={"due_at": following})
    return created


def free_devices() -> None:
    """Devices whose holder has not renewed its grant are free, and wishes of the dead are gone."""
    DeviceRequest.objects.filter(expires_at__lt=Now()).delete()


def tidy() -> None:
    """Take away the rows of workers, wishes and devices of which nothing was heard for long."""
    long_ago = Now() - Value(FORGET)
    WorkerHeartbeat.objects.filter(seen_at__lt=long_ago).delete()
    Device.objects.filter(sampled_at__lt=long_ago, request=None).delete()


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A worker and the shard that it holds, if any, as far as somebody may see it."""

    worker: WorkerHeartbeat
    seconds: float  # since its last sign of life, by the database's clock
    shard: Shard | None
    doing: str  # what else it does; of what may not be seen only that it does something
    lately: Cost  # of its leases that ended in the last hour

    @property
    def is_silent(self) -> bool:
        """Whether it is probably gone."""
        return self.seconds > SILENT_SECONDS

    @property
    def queues(self) -> list[str]:
        """What it serves."""
        return [name for name in self.worker.queues.split(",") if name]


@dataclass(frozen=True, slots=True)
class HostView:
    """A host with its workers, and its devices, each with the stage it is held for.

    The stage is None where the device is free, or what holds it may not be seen.
    """

    name: str
    workers: list[WorkerView]
    devices: list[tuple[Device, Stage | None]]


def overview(user: User) -> list[HostView]:
    """Every host that has workers or devices, in a fixed number of queries.

    Everybody sees the machines and which of them are busy; runs, and what they took, are those that
    the person sees.
    """
    running = Shard.objects.filter(state=State.RUNNING, lease_expires_at__gte=Now())
    seen = seen_by(user, running, "stage__run__project")
    shards = {shard.worker: shard for shard in seen.select_related("stage__run")}
    busy = set(running.values_list("worker", flat=True))
    projects = seen_projects(user)
    hour = ledger.seen_entries(user).filter(ended_at__gt=Now() - Value(timedelta(hours=1)))
    lately = ledger.grouped(hour, "worker")
    views: dict[str, HostView] = {}

    def view(host: str) -> HostView:
        return views.setdefault(host, HostView(host, [], []))

    age = ExpressionWrapper(Now() - F("seen_at"), output_field=DurationField())
    for worker in WorkerHeartbeat.objects.annotate(age=age).order_by("host", "name"):
        host = worker.host or worker.name.partition("/")[0]
        seconds = max(worker.age.total_seconds(), 0.0)
        shard = shards.get(worker.name)
        doing = worker.doing if user.is_staff else _BUSY * bool(worker.doing)
        if shard is None and worker.name in busy:
            doing = _BUSY
        view(host).workers.append(
            WorkerView(worker, seconds, shard, doing, lately.get(worker.name, Cost()))
        )
    for device in Device.objects.select_related("request__stage__run").order_by("host", "pk"):
        stage = device.request.stage if device.request else None
        hidden = stage is not None and stage.run.project_id not in projects
        view(device.host).devices.append((device, None if hidden else stage))
    return [views[name] for name in sorted(views)]


def unserved(user: User) -> list[tuple[str, int]]:
    """Queues with claimable shards that no living worker serves, each with their number.

    Of shards of runs that the person sees.
    """
    seen = WorkerHeartbeat.objects.filter(
        seen_at__gt=Now() - Value(timedelta(seconds=SILENT_SECONDS)), draining=False
    )
    served = {
        name for queues in seen.values_list("queues", flat=True) for name in queues.split(",")
    }
    queued = Shard.objects.filter(
        state=State.QUEUED, stage__state__in=LIVE, stage__run__state__in=LIVE
    )
    waiting = (
        seen_by(user, queued, "stage__run__project")
        .values_list("stage__queue")
        .annotate(count=Count("pk"))
        .order_by("stage__queue")
    )
    return [(queue, count) for queue, count in waiting if queue not in served]

"""Hosts and workers as rows: signs of life, draining, and whose turn the upkeep is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.db.models import Value
from django.db.models.functions import Now

from webapp.runs.models import Device, DeviceRequest, Upkeep, WorkerHeartbeat

ROUND = "reap"
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

"""Who holds which CUDA device of this host. torch is never imported here: the driver is asked.

A stage that needs k devices gets all of them or none. Wishes are rows and are met oldest first, so
that a large one is not starved by small ones: devices that an older wish waits for are kept for it.
Grants have a lease by the database's clock that outlasts the shard's, because a child ends itself
when its worker has not renewed the shard's lease (evaluator/child.py): a device whose grant ran out
is used by nobody.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import Error, connection, transaction
from django.db.models import Value
from django.db.models.functions import Now

from webapp.runs.models import Device, DeviceRequest

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sample:
    """A device and what it was doing a moment ago; None where the driver does not say."""

    name: str  # as CUDA_VISIBLE_DEVICES takes it; blank where the device does not answer
    model: str = ""
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    utilisation_percent: int | None = None


@dataclass(slots=True)
class Grant:
    """Devices that a worker holds until it gives them back or stops renewing."""

    request_id: int
    devices: tuple[str, ...]
    lost: threading.Event = field(default_factory=threading.Event)


def nvidia() -> list[Sample]:
    """Ask NVIDIA's driver; no devices where there is no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        logger.debug("no NVIDIA driver: %s", error)
        return []
    try:
        return [_sample(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        logger.warning("the NVIDIA driver failed; no device is used", exc_info=True)
        return []
    finally:
        pynvml.nvmlShutdown()


def _sample(nvml: Any, index: int) -> Sample:
    def ask(name: str) -> Any:
        try:
            return getattr(nvml, name)(handle)
        except nvml.NVMLError:
            return None  # not every device tells everything

    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        name = str(nvml.nvmlDeviceGetUUID(handle))
    except nvml.NVMLError:
        # It fell off the bus, perhaps; the others keep their numbers and go on.
        logger.warning("device %d does not answer and is not used", index, exc_info=True)
        return Sample("")
    memory, rates = ask("nvmlDeviceGetMemoryInfo"), ask("nvmlDeviceGetUtilizationRates")
    return Sample(
        name=name,
        model=str(ask("nvmlDeviceGetName") or ""),
        memory_total_bytes=getattr(memory, "total", None),
        memory_used_bytes=getattr(memory, "used", None),
        utilisation_percent=getattr(rates, "gpu", None),
    )


# Tests put an inventory of devices here that do not exist.
inventory: Callable[[], list[Sample]] = nvidia


def samples() -> list[Sample]:
    """The devices that this process may use: all of the host's, or CUDA_VISIBLE_DEVICES' choice."""
    found = inventory()
    by_name = {sample.name: sample for sample in found if sample.name}
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return list(by_name.values())
    numbers = {str(index): sample.name for index, sample in enumerate(found)}
    names = [numbers.get(each, each) for each in map(str.strip, chosen.split(","))]
    return [by_name[name] for name in dict.fromkeys(names) if name in by_name]


def record(host: str, found: list[Sample]) -> None:
    """Write the devices of this host down, with what they are doing."""
    for sample in found:
        Device.objects.update_or_create(
            host=host,
            name=sample.name,
            defaults={
                "model": sample.model[:100], "sampled_at": Now(),
                "memory_total_bytes": sample.memory_total_bytes,
                "memory_used_bytes": sample.memory_used_bytes,
                "utilisation_percent": sample.utilisation_percent,
            },
        )  # fmt: skip


def _end() -> Value:
    # Longer than the shard's lease, by which the child that uses the devices ends itself.
    return Now() + Value(timedelta(seconds=2 * settings.RETORT_LEASE_SECONDS))  # type: ignore[return-value]


def _wish_end() -> Value:
    # Whoever finds devices taken asks again when the reaper rings.
    seconds = 4 * settings.RETORT_REAP_SECONDS + settings.RETORT_LEASE_SECONDS
    return Now() + Value(timedelta(seconds=seconds))  # type: ignore[return-value]


@contextlib.contextmanager
def _alone_on(host: str) -> Iterator[None]:
    """One grant at a time per host; requests that ran out are gone, their devices free."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [f"devices of {host}"])
        DeviceRequest.objects.filter(host=host, expires_at__lt=Now()).delete()
        yield


def acquire(
    host: str, stage_id: int, count: int, worker: str, among: Collection[str]
) -> Grant | None:
    """Grant ``count`` devices whole, or leave a wish that ages and return None.

    ``among`` names those that the worker may use and that are there now: rows outlive devices, and
    the host's other workers may have been given others.
    """
    with _alone_on(host):
        wish, _ = DeviceRequest.objects.get_or_create(
            host=host, stage_id=stage_id, granted_at=None,
            defaults={"count": count, "created_at": Now(), "expires_at": _wish_end()},
        )  # fmt: skip
        free = list(Device.objects.filter(host=host, request=None, name__in=among).order_by("pk"))
        older = DeviceRequest.objects.filter(host=host, granted_at=None, pk__lt=wish.pk)
        kept = sum(older.values_list("count", flat=True))
        if len(free) - kept < count:
            DeviceRequest.objects.filter(pk=wish.pk).update(count=count, expires_at=_wish_end())
            return None
        chosen = free[:count]
        DeviceRequest.objects.filter(pk=wish.pk).update(
            count=count, worker=worker, granted_at=Now(), expires_at=_end()
        )
        Device.objects.filter(pk__in=[device.pk for device in chosen]).update(request=wish.pk)
        return Grant(wish.pk, tuple(device.name for device in chosen))


def renew(grant: Grant) -> bool:
    """Prolong the grant; False when it ran out."""
    held = DeviceRequest.objects.filter(pk=grant.request_id, expires_at__gte=Now())
    return bool(held.update(expires_at=_end()))


def give_back(grant: Grant) -> None:
    """The devices are free again."""
    DeviceRequest.objects.filter(pk=grant.request_id).delete()


def is_wanted(host: str, stage_id: int) -> bool:
    """Whether another stage waits for devices of this host, so that ours should make room."""
    waiting = DeviceRequest.objects.filter(host=host, granted_at=None, expires_at__gte=Now())
    return waiting.exclude(stage_id=stage_id).exists()


@contextlib.contextmanager
def holding(grant: Grant | None) -> Iterator[None]:
    """Renew the grant for as long as the context lasts, then give the devices back."""
    if grant is None:
        yield
        return
    over = threading.Event()
    keeper = threading.Thread(target=_keep, args=(grant, over), name="devices", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()
        try:
            give_back(grant)
        except Error:
            # The database is away: the grant runs out by itself.
            logger.warning("devices are not given back", exc_info=True)
            connection.close()


def _keep(grant: Grant, over: threading.Event) -> None:
    try:
        while not over.wait(settings.RETORT_LEASE_SECONDS / 3):
            try:
                if not renew(grant):
                    grant.lost.set()
                    return
            except Error:
                logger.warning("devices' grant not renewed", exc_info=True)
                connection.close()
    finally:
        connection.close()

"""How many devices the stages of a run are given, and whether any host can ever give them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from django.db.models import Count, Value
from django.db.models.functions import Now

from webapp.config import celery
from webapp.core.errors import UserError
from webapp.runs.hosts import SILENT_SECONDS
from webapp.runs.models import Device, WorkerHeartbeat

MOST = 64  # devices of one host


@dataclass(frozen=True, slots=True)
class Devices:
    """CUDA devices of one host that a child of each kind of stage is given.

    For ``generate`` and ``evaluate`` the engine's tensor parallelism, for ``train`` the number of
    processes that share a model by FSDP. Where a CPU stands in for devices, training runs as many
    processes and an engine runs as one.
    """

    generate: int = 1
    train: int = 1
    evaluate: int = 1


def check(count: int, *, what: str, field: str, engine: str | None = None) -> None:
    """Refuse a number of devices that the engine cannot use, or that no known host has.

    ``what`` begins the sentence, e.g. "The teacher". Where no host with devices is known yet
    everything passes: the stage waits for one and says so. Raises UserError.
    """
    if not 1 <= count <= MOST:
        raise UserError(f"{field}: choose a number of devices from 1 to {MOST}.", field)
    if count == 1:
        return
    if engine is not None and engine != "vllm":
        needs = "an endpoint needs none" if engine == "openai" else f"{engine} uses one device"
        raise UserError(f"{field}: {needs}; leave it at 1, or choose the engine vllm.", field)
    largest = largest_host()
    if largest is not None and largest < count:
        raise UserError(
            f"{field}: {what} is to have {count} devices of one host, and the largest host has "
            f"{largest}; ask for at most {largest}, or start a worker on a larger host first.",
            field,
        )


def largest_host() -> int | None:
    """How many devices the host with most of them has; None where none is known that has any.

    None, too, where a living worker serves the gpu queue on a CPU: it takes any number.
    """
    counts = dict(Device.objects.values_list("host").annotate(Count("pk")).order_by("host"))
    living = WorkerHeartbeat.objects.filter(
        seen_at__gt=Now() - Value(timedelta(seconds=SILENT_SECONDS))
    )
    for host, queues in living.values_list("host", "queues"):
        if host not in counts and celery.GPU in queues.split(","):
            return None
    return max(counts.values(), default=None)

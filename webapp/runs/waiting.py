"""Why nothing of a run is being done although it is its turn to be: a sentence for its page."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.db.models import Count, Q, Value
from django.db.models.functions import Now

from webapp.config import celery
from webapp.runs.hosts import LIVE, SILENT_SECONDS
from webapp.runs.models import Device, DeviceRequest, Run, Shard, Stage, State, WorkerHeartbeat


def reason(run: Run) -> str:
    """The sentence, in seven queries at most; empty where shards are being done or none is open."""
    stage = run.stages.filter(state__in=LIVE).order_by("position").first()
    if stage is None:
        return ""
    shards = stage.shards.aggregate(
        held=Count("pk", filter=Q(state=State.RUNNING, lease_expires_at__gte=Now())),
        later=Count("pk", filter=Q(state=State.QUEUED, not_before__gt=Now())),
        open=Count("pk", filter=Q(state__in=LIVE)),
    )
    if shards["held"] or not shards["open"]:
        return ""
    if shards["later"] == shards["open"]:
        return "What failed is tried again in a moment."
    return (
        _no_worker(stage) or _limit(run) or _no_device(stage) or "Every worker is busy with others."
    )


def _no_worker(stage: Stage) -> str:
    """Whether no living worker can do the stage, be it for want of the queue or of devices."""
    living = WorkerHeartbeat.objects.filter(
        seen_at__gt=Now() - Value(timedelta(seconds=SILENT_SECONDS)), draining=False
    )
    serving = {
        host for host, queues in living.values_list("host", "queues")
        if stage.queue in queues.split(",")
    }  # fmt: skip
    if not serving:
        on_cpu = (
            " on a host with a GPU, or with RETORT_GPU_QUEUE_ON_CPU=1"
            if stage.queue == celery.GPU
            else ""
        )
        return f"No worker serves the queue {stage.queue}: start one{on_cpu}."
    if not stage.devices:
        return ""
    counts = dict(
        Device.objects.filter(host__in=serving)
        .values_list("host")
        .annotate(Count("pk"))
        .order_by("host")
    )
    # On a host without any the CPU stands in for them.
    if any(counts.get(host, stage.devices) >= stage.devices for host in serving):
        return ""
    return (
        f"It needs {stage.devices} devices of one host, and the largest that is up has "
        f"{max(counts.values())}: start a worker on a larger one, or launch it with fewer."
    )


def _limit(run: Run) -> str:
    """Whether the owner has as many shards being done as may be."""
    limit = run.owner.max_running_shards
    limit = (settings.RETORT_USER_SHARDS or None) if limit is None else limit
    if limit is None:
        return ""
    busy = Shard.objects.filter(
        state=State.RUNNING, lease_expires_at__gte=Now(), stage__run__owner=run.owner_id
    ).count()
    if busy < limit:
        return ""
    # Not how many: they may be of runs that the reader does not see.
    return (
        f"{run.owner.get_username()} may have {limit} shards being done at a time, and has as many."
    )


def _no_device(stage: Stage) -> str:
    """Whether the stage's wish for devices waits for others to give theirs back."""
    wish = DeviceRequest.objects.filter(stage=stage, granted_at=None, expires_at__gte=Now()).first()
    if wish is None:
        return ""
    free = Device.objects.filter(host=wish.host, request=None).count()
    return f"It waits for {wish.count} devices of {wish.host}, where {free} are free by now."

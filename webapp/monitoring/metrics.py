"""Metrics for Prometheus. What the database knows is read from it at every scrape.

So any web process tells the same, and restarts lose nothing: counters are sums over the ledger,
which only grows. The number of queries is fixed (``QUERIES``). docs/monitoring.md lists the names.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import DatabaseError, connection
from django.db.models import Count, F, FloatField, Q, Sum
from django.db.models.functions import Now
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from webapp.checkpoints.models import Checkpoint, UploadFile
from webapp.config.celery import QUEUES
from webapp.monitoring import latency
from webapp.runs.hosts import SILENT_SECONDS
from webapp.runs.models import Device, LedgerEntry, Run, Stage, State, WorkerHeartbeat

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
QUERIES = 9  # of a scrape
CAUSES = ("transient", "permanent", "out_of_memory", "lost_lease", "limits")

logger = logging.getLogger(__name__)


def exposition() -> bytes:
    """All metrics in Prometheus' text format."""
    registry = CollectorRegistry()
    latency.register(registry)
    registry.register(_Collector())
    return generate_latest(registry)


class _Collector:
    """Reads the database and the disks. Where the database is away, it says that much."""

    def collect(self) -> Iterator[Metric]:
        """Yield every family."""
        yield from _disks()
        up = GaugeMetricFamily("retort_database_up", "1 where the database answers.")
        families: list[Metric] = []
        try:
            for read in (_shards, _stages, _ledger, _devices, _workers, _files, _runs):
                families += read()
            up.add_metric([], 1)
        except DatabaseError as error:
            logger.warning("metrics without the database: %s", error)
            families = []
            up.add_metric([], 0)
        yield up
        yield from families


def _gauge(name: str, text: str, labels: list[str], rows: Any) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"retort_{name}", text, labels=labels)
    for *values, number in rows:
        if number is not None:
            family.add_metric([str(value) for value in values], float(number))
    return family


def _counter(name: str, text: str, labels: list[str], rows: Any) -> CounterMetricFamily:
    family = CounterMetricFamily(f"retort_{name}", text, labels=labels)
    for *values, number in rows:
        family.add_metric([str(value) for value in values], float(number or 0))
    return family


# A stage's shards can be claimed since the stage before it ended; a shard that was given back, or
# whose wait after a failure or lease ran out, since then.
_SHARDS = """
SELECT st.queue,
       count(*) FILTER (WHERE open.waits),
       max(extract(epoch FROM statement_timestamp() - greatest(s.updated_at, s.not_before,
           CASE WHEN s.state = 'running' THEN s.lease_expires_at END,
           (SELECT max(p.finished_at) FROM runs_stage p
            WHERE p.run_id = st.run_id AND p.position < st.position))))
           FILTER (WHERE open.waits),
       count(*) FILTER (WHERE open.held),
       max(extract(epoch FROM statement_timestamp() - s.leased_at)) FILTER (WHERE open.held)
FROM runs_shard s JOIN runs_stage st ON st.id = s.stage_id JOIN runs_run r ON r.id = st.run_id,
     LATERAL (SELECT s.state = 'running' AND s.lease_expires_at >= statement_timestamp() AS held,
                     CASE s.state WHEN 'queued'
                          THEN coalesce(s.not_before <= statement_timestamp(), true)
                          ELSE s.lease_expires_at < statement_timestamp() END AS waits
     ) AS open
WHERE s.state IN ('queued', 'running') AND st.state IN ('queued', 'running')
      AND r.state IN ('queued', 'running')
GROUP BY st.queue
"""


def _shards() -> list[Metric]:
    with connection.cursor() as cursor:
        cursor.execute(_SHARDS)
        found = {row[0]: row[1:] for row in cursor.fetchall()}
    rows = [(queue, *found.get(queue, (0, 0, 0, 0))) for queue in QUEUES]
    families = (
        ("queue_claimable_shards", "Shards that a worker of the queue could claim now."),
        ("queue_oldest_claimable_seconds", "How long the oldest of them has been claimable."),
        ("queue_running_shards", "Shards held under a lease."),
        ("queue_oldest_lease_seconds", "Age of the oldest lease: since its shard was claimed."),
    )
    return [
        _gauge(name, text, ["queue"], [(row[0], row[column] or 0) for row in rows])
        for column, (name, text) in enumerate(families, 1)
    ]


def _stages() -> list[Metric]:
    running = Stage.objects.filter(state=State.RUNNING).values_list("kind").order_by("kind")
    return [
        _gauge(
            "stage_tokens_per_second", "Tokens a second of the stages that are running.", ["kind"],
            running.annotate(rate=Sum("tokens_per_second")),
        )
    ]  # fmt: skip


def _ledger() -> list[Metric]:
    entries = LedgerEntry.objects.order_by().values("kind")
    sums = ("device_seconds", "cpu_seconds", "wall_seconds", "prompt_tokens", "completion_tokens")

    def lost(name: str) -> Sum:
        return Sum(F(name) * F("lost_share"), output_field=FloatField())

    totals: list[Any] = list(
        entries.annotate(
            money=Sum("endpoint_money"),
            lost_device=lost("device_seconds"),
            lost_cpu=lost("cpu_seconds"),
            **{f"sum_{name}": Sum(name) for name in sums},
        ).order_by("kind")
    )
    counts = list(
        entries.values_list("kind", "ended", "cause").annotate(count=Count("pk")).order_by("kind")
    )
    failures: dict[str, int] = dict.fromkeys(CAUSES, 0)
    ended: dict[tuple[str, str], int] = {}
    for kind, how, cause, count in counts:
        ended[kind, how] = ended.get((kind, how), 0) + count
        if cause:
            failures[cause] = failures.get(cause, 0) + count

    def of(column: str) -> list[tuple[Any, ...]]:
        return [(row["kind"], row[column]) for row in totals]

    tokens = [
        (row["kind"], direction, row[f"sum_{direction}_tokens"])
        for row in totals
        for direction in ("prompt", "completion")
    ]
    return [
        _counter("leases_ended", "Leases by how they ended.", ["kind", "ended"],
                 [(*key, count) for key, count in sorted(ended.items())]),
        _counter("shard_failures", "Leases that failed, by cause.", ["cause"], failures.items()),
        _counter("tokens", "Tokens drawn.", ["kind", "direction"], tokens),
        _counter("device_seconds", "Seconds × devices.", ["kind"], of("sum_device_seconds")),
        _counter("device_seconds_lost", "Of them, lost.", ["kind"], of("lost_device")),
        _counter("cpu_seconds", "CPU time of stages' processes.", ["kind"], of("sum_cpu_seconds")),
        _counter("cpu_seconds_lost", "Of it, lost.", ["kind"], of("lost_cpu")),
        _counter("lease_seconds", "Time under lease.", ["kind"], of("sum_wall_seconds")),
        _counter("endpoint_money", "Money for endpoints, as far as it is known, in "
                 f"{settings.RETORT_CURRENCY}.", ["kind"], of("money")),
    ]  # fmt: skip


def _devices() -> list[Metric]:
    devices = list(Device.objects.order_by("host", "name"))
    hosts = sorted({device.host for device in devices})

    def each(number: Callable[[Device], float | None]) -> list[tuple[Any, ...]]:
        return [(device.host, device.name, number(device)) for device in devices]

    def busy(device: Device) -> float | None:
        percent = device.utilisation_percent
        return None if percent is None else percent / 100

    return [
        _gauge("devices", "CUDA devices.", ["host"],
               [(host, sum(d.host == host for d in devices)) for host in hosts]),
        _gauge("devices_held", "Devices held for a stage.", ["host"],
               [(host, sum(d.host == host and d.request_id is not None for d in devices))
                for host in hosts]),
        _gauge("device_memory_used_bytes", "A device's memory in use.", ["host", "device"],
               each(lambda device: device.memory_used_bytes)),
        _gauge("device_memory_total_bytes", "A device's memory.", ["host", "device"],
               each(lambda device: device.memory_total_bytes)),
        _gauge("device_utilisation_ratio", "Share of time in which it was busy.",
               ["host", "device"], each(busy)),
    ]  # fmt: skip


def _workers() -> list[Metric]:
    age = Now() - F("seen_at")
    workers = list(
        WorkerHeartbeat.objects.annotate(age=age).order_by("name")
        .values_list("name", "queues", "draining", "age")
    )  # fmt: skip
    silent = timedelta(seconds=SILENT_SECONDS)

    def serving(queue: str) -> int:
        return sum(
            queue in queues.split(",") and not draining and since <= silent
            for _, queues, draining, since in workers
        )

    return [
        _gauge("workers", "Living workers that claim from the queue.", ["queue"],
               [(queue, serving(queue)) for queue in QUEUES]),
        _gauge("worker_heartbeat_age_seconds", "Since a worker's last sign of life.", ["worker"],
               [(name, max(since.total_seconds(), 0)) for name, _, _, since in workers]),
    ]  # fmt: skip


def _files() -> list[Metric]:
    uploads = (
        UploadFile.objects.values_list("upload__state").order_by("upload__state")
        .annotate(size=Sum("offset_bytes"))
    )  # fmt: skip
    stored = Checkpoint.objects.filter(~Q(path="")).aggregate(size=Sum("size_bytes"))
    return [
        _gauge("upload_bytes", "Bytes received of uploads, by the upload's state.", ["state"],
               uploads),
        _gauge("checkpoint_bytes", "Size of all checkpoints with files.", [],
               [(stored["size"] or 0,)]),
    ]  # fmt: skip


def _runs() -> list[Metric]:
    counts = dict(Run.objects.values_list("state").annotate(count=Count("pk")).order_by("state"))
    return [
        _gauge("runs", "Runs by state.", ["state"],
               [(state, counts.get(state, 0)) for state in State.values])
    ]  # fmt: skip


def _disks() -> Iterator[Metric]:
    places = {"files": Path(settings.MEDIA_ROOT), "var": settings.RETORT_VAR}
    free, size = [], []
    for name, path in places.items():
        # Before anything was written the folder is missing; its disk is not.
        usage = shutil.disk_usage(next(each for each in (path, *path.parents) if each.exists()))
        free.append((name, usage.free))
        size.append((name, usage.total))
    yield _gauge("disk_free_bytes", "Room left where files lie.", ["place"], free)
    yield _gauge("disk_size_bytes", "Size of that disk.", ["place"], size)

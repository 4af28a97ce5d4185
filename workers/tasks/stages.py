"""The one task: do what the stage has to do, shard after shard, until nothing is left of it."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading

from django.conf import settings

from webapp.config.celery import GPU, RUN_STAGE, app
from webapp.runs import leases, stages
from webapp.runs.models import Stage
from workers import gpus, supervisor

logger = logging.getLogger(__name__)
stopping = threading.Event()


@app.task(name=RUN_STAGE)
def run_stage(stage_id: int) -> None:
    """Claim shards of the stage and have a child do them. A message too many changes nothing."""
    do_stage(stage_id, f"{socket.gethostname()}/{os.getpid()}")


def do_stage(stage_id: int, worker: str) -> None:
    """Do the stage's claimable shards in one child, on a device where the stage wants one."""
    stage = Stage.objects.filter(pk=stage_id).first()
    if stage is None:
        return
    needs_device = stages.REGISTRY[stage.kind].queue == GPU
    with gpus.hold() if needs_device else contextlib.nullcontext() as device:
        if (
            needs_device
            and device is None
            and (gpus.devices() or not settings.RETORT_GPU_QUEUE_ON_CPU)
        ):
            return  # every device is taken; the reaper rings again
        claim = leases.claim_shard(stage_id, worker)
        if claim is None:
            return
        leases.beat(worker, doing=str(stage))
        try:
            supervisor.supervise(stage, claim, worker, device=device, stopping=stopping)
        finally:
            leases.beat(worker, doing="")

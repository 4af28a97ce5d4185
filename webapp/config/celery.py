"""The one Celery app. A message is a doorbell: it carries a stage's id and nothing else."""

from __future__ import annotations

import os

from celery import Celery
from django.conf import settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.config.settings")

GPU, CPU = "gpu", "cpu"  # the queues
RUN_STAGE = "workers.run_stage"

app = Celery("retort", broker=settings.CELERY_BROKER_URL, set_as_current=True)
app.conf.update(
    accept_content=["json"],
    task_serializer="json",
    task_ignore_result=True,
    task_acks_late=False,  # the row is the truth: a lost message is rung again by the reaper
    task_default_queue=CPU,
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    worker_enable_remote_control=False,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"visibility_timeout": 3600},
    timezone="UTC",
    enable_utc=True,
)


def ring(stage_id: int, queue: str) -> None:
    """Tell a worker of ``queue`` that the stage may have something to do.

    A message that nobody reads in time is void: the reaper has rung again by then, and a busy
    queue does not fill up with old ones.
    """
    expires = 2 * settings.RETORT_REAP_SECONDS
    app.send_task(RUN_STAGE, args=[stage_id], queue=queue, ignore_result=True, expires=expires)

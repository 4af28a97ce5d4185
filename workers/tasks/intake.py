"""Uploads that wait for a worker: fetched and verified one by one, each under its lease."""

from __future__ import annotations

import logging
import threading
import time

from django.conf import settings
from django.db import Error, connection

from webapp.checkpoints import intake
from webapp.checkpoints.intake import Job
from webapp.config.celery import TAKE_IN, app
from webapp.runs import hosts
from workers.names import worker_name
from workers.tasks import stages

logger = logging.getLogger(__name__)


@app.task(name=TAKE_IN)
def take_in() -> None:
    """Do what waits. A message too many changes nothing."""
    worker = worker_name()
    while not stages.stopping.is_set() and (job := intake.claim(worker)) is not None:
        hosts.beat(worker, doing="an upload")
        try:
            with _Renewal(job) as renewal:
                intake.carry_out(job, renewal.holds)
        finally:
            hosts.beat(worker, doing="")


class _Renewal:
    """Renews the lease in a thread while the work is done."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._over = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._run, name="renewal", daemon=True)

    def __enter__(self) -> _Renewal:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def holds(self) -> bool:
        """Whether to go on."""
        return not (self._lost.is_set() or stages.stopping.is_set())

    def _run(self) -> None:
        until = time.monotonic() + settings.RETORT_LEASE_SECONDS
        while not self._over.wait(settings.RETORT_LEASE_SECONDS / 4):
            try:
                if not intake.renew(self._job):
                    self._lost.set()
                    break
                until = time.monotonic() + settings.RETORT_LEASE_SECONDS
            except Error:
                logger.warning("a lease could not be renewed; it is tried again", exc_info=True)
                connection.close()
                if time.monotonic() > until:
                    self._lost.set()
                    break
        connection.close()

"""Upkeep: the reaper and the sign of life, in a thread of every worker.

Each worker reaps, so no single process has to live for lost messages to be made good; ringing
twice changes nothing.
"""

from __future__ import annotations

import logging
import threading

from django.conf import settings
from django.db import Error, connection
from kombu.exceptions import OperationalError

from webapp.runs import leases

BEAT_SECONDS = 10.0

logger = logging.getLogger(__name__)
stopping = threading.Event()


def start(worker: str) -> threading.Thread:
    """Begin; the thread ends with ``stopping``."""
    thread = threading.Thread(target=_run, args=(worker,), name="upkeep", daemon=True)
    thread.start()
    return thread


def _run(worker: str) -> None:
    period = min(BEAT_SECONDS, settings.RETORT_REAP_SECONDS)
    elapsed = settings.RETORT_REAP_SECONDS  # the first round reaps
    while not stopping.is_set():
        try:
            leases.beat(worker)
            if elapsed >= settings.RETORT_REAP_SECONDS:
                elapsed = 0.0
                leases.reap()
        except (Error, OperationalError):
            # A server that is away now may be back at the next round.
            logger.warning("upkeep failed; it is tried again", exc_info=True)
            connection.close()
        stopping.wait(period)
        elapsed += period
    try:
        leases.forget(worker)
    except Error:
        logger.warning("the sign of life is left behind", exc_info=True)
    connection.close()

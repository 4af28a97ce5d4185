"""Upkeep: signs of life, the reaper, samples of the devices, in a thread of every worker.

Each worker's thread gives its own sign of life; the reaper's round is done by whichever worker's
thread is first when it is due, so no single process has to live for lost messages to be made good.
Tidying up is not urgent and goes through the upkeep queue.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from django.conf import settings
from django.db import Error, connection
from kombu.exceptions import OperationalError

from webapp.checkpoints import intake
from webapp.config import celery
from webapp.config.celery import SETTLE, TIDY, app
from webapp.core import accounts
from webapp.core.hosts import host_name
from webapp.housekeeping import retention
from webapp.leaderboard import scores
from webapp.projects import invitations
from webapp.runs import hosts, leases, settling
from workers import gpus, judging

BEAT_SECONDS = 10.0
TIDY_ROUNDS = 40  # the reaper's rounds, of this worker, between two requests to tidy up

logger = logging.getLogger(__name__)
stopping = threading.Event()


@app.task(name=TIDY)
def tidy() -> None:
    """Take away rows of what is long gone, and files that nothing refers to."""
    hosts.tidy()
    retention.tidy()
    accounts.tidy()
    invitations.forget_old()
    scores.forget_changes()


@app.task(name=SETTLE)
def settle() -> None:
    """Go on with runs whose programs have been judged."""
    settling.settle()


def start(worker: str, queues: Sequence[str]) -> threading.Thread:
    """Begin; the thread ends with ``stopping``."""
    thread = threading.Thread(target=_run, args=(worker, queues), name="upkeep", daemon=True)
    thread.start()
    return thread


def start_judging(worker: str) -> threading.Thread:
    """Signs of life of a worker of the judge queue, who may do no upkeep."""
    thread = threading.Thread(target=_run_judging, args=(worker,), name="upkeep", daemon=True)
    thread.start()
    return thread


def _run_judging(worker: str) -> None:
    while not stopping.is_set():
        try:
            judging.beat(worker, host_name())
        except Error:
            logger.warning("no sign of life; it is tried again", exc_info=True)
            connection.close()
        stopping.wait(min(BEAT_SECONDS, settings.RETORT_REAP_SECONDS))
    try:
        judging.forget(worker)
    except Error:
        logger.warning("the sign of life is left behind", exc_info=True)
    connection.close()


def _run(worker: str, queues: Sequence[str]) -> None:
    period = min(BEAT_SECONDS, settings.RETORT_REAP_SECONDS)
    greeted, rounds = False, 0
    while not stopping.is_set():
        try:
            if not greeted:
                hosts.greet(worker, host_name(), queues)
                greeted = True
            hosts.beat(worker)
            gpus.record(host_name(), gpus.samples())
            if hosts.takes_turn(settings.RETORT_REAP_SECONDS):
                settling.settle()
                leases.reap()
                if intake.is_waiting() and not celery.is_full(celery.CPU):
                    celery.ask_to_take_in()
                hosts.free_devices()
                rounds += 1
                if rounds % TIDY_ROUNDS == 1:
                    celery.ask_to_tidy()
        except (Error, OperationalError):
            # A server that is away now may be back at the next round.
            logger.warning("upkeep failed; it is tried again", exc_info=True)
            connection.close()
        stopping.wait(period)
    try:
        hosts.forget(worker)
    except Error:
        logger.warning("the sign of life is left behind", exc_info=True)
    connection.close()

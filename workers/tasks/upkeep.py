"""Upkeep: signs of life, the reaper, samples of the devices, in a thread of every worker.

Each worker's thread gives its own sign of life; the reaper's round is done by whichever worker's
thread is first when it is due, so no single process has to live for lost messages to be made good.
Tidying up is not urgent and goes through the upkeep queue.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterator, Sequence

from django.conf import settings
from django.db import connection

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
        attempt(lambda: judging.beat(worker, host_name()))
        stopping.wait(min(BEAT_SECONDS, settings.RETORT_REAP_SECONDS))
    attempt(lambda: judging.forget(worker))
    connection.close()


def _run(worker: str, queues: Sequence[str]) -> None:
    greeted, rounds = False, itertools.count()
    while not stopping.is_set():
        greeted = greeted or attempt(lambda: hosts.greet(worker, host_name(), queues))
        attempt(lambda: hosts.beat(worker))
        attempt(lambda: gpus.record(host_name(), gpus.samples()))
        attempt(lambda: _take_turn(rounds))
        stopping.wait(min(BEAT_SECONDS, settings.RETORT_REAP_SECONDS))
    attempt(lambda: hosts.forget(worker))
    connection.close()


def _take_turn(rounds: Iterator[int]) -> None:
    """Do the reaper's round, where it is due."""
    if not hosts.takes_turn(settings.RETORT_REAP_SECONDS):
        return
    for part in (settling.settle, leases.reap, _ask_to_take_in, hosts.free_devices):
        attempt(part)
    if next(rounds) % TIDY_ROUNDS == 0:
        attempt(celery.ask_to_tidy)


def _ask_to_take_in() -> None:
    if intake.is_waiting() and not celery.is_full(celery.CPU):
        celery.ask_to_take_in()


def attempt(act: Callable[[], object]) -> bool:
    """Whether ``act`` worked. Whatever hinders it hinders nothing else that a thread does.

    Servers that are away now may be back at the next round. And a thread that one run's fault ended
    would leave every other run without what it does, on one worker after the other.
    """
    try:
        act()
    except Exception:
        logger.warning("it is tried again at the next round", exc_info=True)
        connection.close()
        return False
    return True

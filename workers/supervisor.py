"""A stage's shards in one child process: fed, listened to, renewed, and ended whatever happens."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import Error, InterfaceError, OperationalError, connection

from evaluator.errors import StoreError
from webapp.core import logs, store
from webapp.core.errors import UserError
from webapp.runs import handover, resuming, stages
from webapp.runs.leases import Claim, LeaseLostError
from webapp.runs.models import Stage
from workers import endings, gpus
from workers.children import END_SECONDS, Child, child_command, child_environment
from workers.endings import Ending
from workers.gpus import Grant
from workers.metering import Meter
from workers.offices import Office

TERM_SECONDS = 5.0  # between SIGTERM and SIGKILL
CHECK_SECONDS = 1.0  # how soon a cancel is noticed
LOG_SECONDS = 3.0  # how old the log's tail on the run's page may be

logger = logging.getLogger(__name__)


class _Heartbeat:
    """Renews a lease every third of it and notices within a second when it is lost.

    Each time, the child is told how much longer it may go on without hearing from us.
    """

    def __init__(self, meter: Meter, claim: Claim, child: Child) -> None:
        self._meter = meter
        self._claim = claim
        self._child = child
        self._shown = (-LOG_SECONDS, "")  # when the log was last shown, and what of it
        self._over = threading.Event()
        self.lost = threading.Event()
        self._thread = threading.Thread(
            target=logs.carried(self._run), name="heartbeat", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End the thread, so that nothing is renewed any more."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        renewed = time.monotonic()
        third = settings.RETORT_LEASE_SECONDS / 3
        self._child.send({"beat": settings.RETORT_LEASE_SECONDS})
        try:
            while not self._over.wait(min(CHECK_SECONDS, third)):
                try:
                    asked = time.monotonic()
                    due = asked - renewed >= third
                    if not (self._meter.renew if due else self._meter.office.is_held)(self._claim):
                        self.lost.set()
                        return
                    if due:
                        renewed = asked
                        left = asked + settings.RETORT_LEASE_SECONDS - time.monotonic()
                        self._child.send({"beat": left})
                    self._show_log()
                except Error:
                    # The database may be back before the lease runs out; after that, we lost it.
                    logger.warning("lease not renewed", exc_info=True)
                    connection.close()
                    if time.monotonic() - renewed > settings.RETORT_LEASE_SECONDS:
                        self.lost.set()
                        return
        finally:
            connection.close()

    def _show_log(self) -> None:
        at, shown = self._shown
        now, tail = time.monotonic(), self._child.log_tail
        if tail != shown and now - at >= LOG_SECONDS:
            self._meter.office.show_log(self._claim, tail)
            self._shown = (now, tail)


@dataclass(frozen=True, slots=True)
class Post:
    """Where a stage's shards are done: by which worker, on which devices, on whose word."""

    worker: str
    queues: Sequence[str]
    office: Office
    stopping: threading.Event
    grant: Grant | None = None
    host: str = ""

    @property
    def devices(self) -> tuple[str, ...]:
        """What the child may see; none for the CPU."""
        return () if self.grant is None else self.grant.devices


@dataclass(frozen=True, slots=True)
class _Work:
    """A stage's child, and what watches over what it does."""

    stage: Stage
    child: Child
    meter: Meter
    keeper: resuming.Keeper


@contextmanager
def _renewed(office: Office, claim: Claim, stopping: threading.Event) -> Iterator[None]:
    """Keep the lease while files are brought here, before there is a child.

    What may take hours to bring is given up when the lease is lost, or the worker is to stop.
    """
    over, lost = threading.Event(), threading.Event()

    def run() -> None:
        renewed, third = time.monotonic(), settings.RETORT_LEASE_SECONDS / 3
        try:
            while not over.wait(min(CHECK_SECONDS, third)):
                due = time.monotonic() - renewed >= third
                try:
                    if not (office.renew if due else office.is_held)(claim):
                        lost.set()
                        return
                except Error:
                    logger.warning("lease not renewed", exc_info=True)
                    connection.close()
                    continue
                if due:
                    renewed = time.monotonic()
        finally:
            connection.close()

    thread = threading.Thread(target=logs.carried(run), name="bringing", daemon=True)
    thread.start()
    try:
        with store.as_long_as(lambda: not (lost.is_set() or stopping.is_set())):
            yield
    finally:
        over.set()
        thread.join()


@handover.in_use()
def supervise(stage: Stage, claim: Claim, post: Post) -> None:
    """Do ``claim`` and further shards of the stage in one child, until others have their turn."""
    office = post.office
    try:
        with _renewed(office, claim, post.stopping):
            spec = office.write_spec(stage, "cuda" if post.devices else "cpu")
            handover.bring(spec)
        environment = child_environment(post.devices, stages.secrets(stage))
    except (Error, LeaseLostError):
        raise
    except store.UnwantedError:
        office.release_shard(claim)  # which does nothing where the lease is lost
        logger.info("what was being brought is wanted no more")
        return
    except Exception as error:
        # Nothing the child could be told: the run must say so instead of hanging.
        known = endings.out_of_something(stage.kind, str(error))
        sentence = f"The stage cannot start: {error}" if known is None else known.sentence
        transient = isinstance(error, StoreError) if known is None else known.transient
        office.fail_shard(claim, sentence, transient=transient)
        raise
    child = Child(child_command(stage, spec), environment)
    meter = Meter(office, child, post.devices)
    work = _Work(stage, child, meter, resuming.Keeper(stage))
    loaded = time.monotonic()
    current: Claim | None = claim
    try:
        while current is not None:
            child.ids = current.log_ids
            with logs.about(**current.log_ids):
                meter.begin(current)
                if not _do_shard(work, current, post):
                    return
            current = _next(stage, post, time.monotonic() - loaded)
        child.send({"end": True})
        child.wait(END_SECONDS)
    except LeaseLostError:
        logger.info("lease lost; the child is ended", extra=dict(child.ids))
    except Exception as error:
        # Not the child's doing: a bounded number of tries, then the run says what happened.
        sentence = f"The worker failed ({type(error).__name__}): {error}"
        if current is not None and office.is_held(current):
            meter.fail(current, sentence, transient=True, log_tail=child.log_tail)
        raise
    finally:
        child.kill(TERM_SECONDS)


def _next(stage: Stage, post: Post, seconds: float) -> Claim | None:
    """The next shard for this child; None where there is none, or others have waited enough."""
    if post.stopping.is_set():
        return None
    if seconds < settings.RETORT_STICKY_SECONDS:
        following = post.office.claim(post.worker, post.queues, sticky=stage.pk)
    elif post.grant is not None and gpus.is_wanted(post.host, stage.pk):
        return None  # the devices are given back, and the next claim is a fair one
    else:
        following = post.office.claim(post.worker, post.queues)
    if following is None or following.stage_id == stage.pk:
        return following
    # Another stage's turn: this child is ended, which may take longer than a lease.
    post.office.release_shard(following)
    return None


def _do_shard(work: _Work, claim: Claim, post: Post) -> bool:
    """Feed one shard and take in its events; False when the child is of no use any more.

    Raises LeaseLostError when the shard is no longer ours.
    """
    child, meter = work.child, work.meter
    began = time.monotonic()
    child.heard = began
    heartbeat = _Heartbeat(meter, claim, child)
    try:
        handover.bring_segments(work.stage, claim.accepted)
        child.send(
            {
                "shard": claim.shard_id,
                "lease": claim.token.hex,
                "work": dict(claim.work),
                "accepted": list(claim.accepted),
            }
        )
        while True:
            if heartbeat.lost.is_set() or (post.grant is not None and post.grant.lost.is_set()):
                raise LeaseLostError("the lease is no longer ours")
            if post.stopping.is_set():
                child.kill(TERM_SECONDS)
                meter.release(claim)
                return False
            try:
                event = child.events.get(timeout=0.2)
            except queue.Empty:
                if child.exited():
                    return _ended(work, claim)
                if (limit := _over_limit(child, began)) is not None:
                    return _fail(work, claim, limit)
                continue
            finished = _take_in(work, claim, event)
            if finished is not None:
                return finished
    finally:
        heartbeat.stop()


def _over_limit(child: Child, began: float) -> Ending | None:
    """Which limit the shard has passed, if any."""
    now = time.monotonic()
    idle, wall = settings.RETORT_IDLE_SECONDS, settings.RETORT_WALL_SECONDS
    if wall and now - began > wall:
        return Ending(
            f"The shard took longer than RETORT_WALL_SECONDS ({wall:g}); raise it or ask for less.",
            transient=False,
            cause=endings.LIMITS,
        )
    if idle and now - child.heard > idle:
        return Ending(
            f"The stage's process said nothing for RETORT_IDLE_SECONDS ({idle:g}) and was ended.",
            transient=True,
            cause=endings.LIMITS,
        )
    return None


def _ended(work: _Work, claim: Claim) -> bool:
    """The child is gone: what it still said counts, then its end is the failure."""
    child = work.child
    child.drained()
    while not child.events.empty():
        finished = _take_in(work, claim, child.events.get())
        if finished is not None:
            return finished
    code = child.kill()
    end = endings.of_exit(work.stage.kind, code, child.log_tail, oom_killed=child.oom_killed)
    return _fail(work, claim, end)


def _take_in(work: _Work, claim: Claim, event: dict[str, Any]) -> bool | None:
    """Do what an event says; True when the shard is done, False when it failed, None: go on.

    While the database is away the event waits, for as long as the lease can still be ours: each
    event may be taken in twice.
    """
    deadline = time.monotonic() + settings.RETORT_LEASE_SECONDS
    while True:
        try:
            return _take_in_once(work, claim, event)
        except (OperationalError, InterfaceError):
            connection.close()
            if time.monotonic() > deadline:
                raise
            logger.warning("the database is away; waiting for it", exc_info=True)
            time.sleep(0.5)


def _take_in_once(work: _Work, claim: Claim, event: dict[str, Any]) -> bool | None:
    stage, office = work.stage, work.meter.office
    try:
        match event["event"]:
            case "ready":
                office.engine_ready(claim, event["engine"])
            case "progress":
                office.record_progress(
                    claim, done=event["done"], total=event["total"],
                    unit=event["unit"], tokens=event["tokens"],
                )  # fmt: skip
            case "segment":
                office.accept_segment(
                    claim, name=event["name"], sha256=event["sha256"], size_bytes=event["bytes"]
                )
            case "metric":
                office.add_training_point(claim, step=event["step"], values=event["values"])
            case "usage":
                work.meter.tokens(event)
            case "saved":
                work.keeper.offer(claim.token.hex, Path(event["folder"]))
            case "done":
                work.meter.finish(claim, handover.give(stage, event["result"]))
                work.keeper.end()
                return True
            case "failed":
                known = endings.out_of_something(stage.kind, event["error"])
                handover.give_report(stage)
                work.child.wait(1.0)  # the traceback follows the event
                return _fail(work, claim, known or Ending(event["error"], event["transient"]))
            case unknown:
                sentence = f"The child said {unknown!r}, which is no event."
                return _fail(work, claim, Ending(sentence, transient=False))
    except (StoreError, stages.IncompleteError) as error:
        return _fail(work, claim, Ending(str(error), transient=True))
    except UserError as error:
        return _fail(work, claim, Ending(error.sentence, transient=False))
    return None


def _fail(work: _Work, claim: Claim, end: Ending) -> bool:
    work.child.kill(TERM_SECONDS)
    tail = work.child.log_tail
    work.meter.fail(claim, end.sentence, transient=end.transient, cause=end.cause, log_tail=tail)
    return False

"""The upkeep goes on, whatever happens to a broker or a run: or nothing lost is made good."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu.exceptions import OperationalError

from webapp.checkpoints import intake
from webapp.config import celery, embedded
from webapp.leaderboard import desk
from webapp.notifications import services
from webapp.runs import hosts, leases, settling
from workers import clerk, gpus, notifying
from workers.tasks import upkeep


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[embedded.Servers]:
    servers = embedded.Servers(tmp_path)
    servers.ensure_running(postgres=False)
    yield servers
    servers.stop()


def test_a_broker_that_was_away_is_asked_again(
    broker: embedded.Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = Celery("away", broker=broker.broker_url, set_as_current=False)
    monkeypatch.setattr(celery, "app", app)
    monkeypatch.setattr(celery, "MAX_WAITING", 2)
    assert not celery.is_full("cpu")  # nobody has used it
    for _ in range(2):
        celery.ask_to_take_in()
    assert celery.is_full("cpu")
    for _ in range(2):
        os.kill(int((broker.var / "redis" / "redis.pid").read_text()), signal.SIGKILL)
        broker.redis_socket.unlink()
        for _ in range(2):
            with pytest.raises(OperationalError):
                celery.is_full("cpu")
        broker._start_redis()
        assert not celery.is_full("cpu"), "it came back empty"
        for _ in range(2):
            celery.ask_to_take_in()
        assert celery.is_full("cpu")


def test_a_broker_that_hangs_holds_nobody_up(
    broker: embedded.Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = dict(celery.app.conf.broker_transport_options)
    assert 0 < options["socket_timeout"] <= 10
    app = Celery("hangs", broker=broker.broker_url, set_as_current=False)
    app.conf.update(broker_transport_options=options | {"socket_timeout": 0.2})
    monkeypatch.setattr(celery, "app", app)
    celery.ask_to_tidy()
    process = int((broker.var / "redis" / "redis.pid").read_text())
    os.kill(process, signal.SIGSTOP)
    try:
        for ask in (celery.ask_to_tidy, lambda: celery.is_full("cpu")):
            began = time.monotonic()
            with pytest.raises(OperationalError):
                ask()
            assert time.monotonic() - began < 10
    finally:
        os.kill(process, signal.SIGCONT)
    celery.ask_to_tidy()
    assert not celery.is_full("upkeep")


class OddError(Exception):
    """What nobody thought of."""


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Callable[..., None]:
    """Run a thread of a worker until each of some functions was called twice."""
    settings.RETORT_REAP_SECONDS = 0.01
    monkeypatch.setattr(clerk, "LOOK_SECONDS", 0.01)
    stopping = threading.Event()
    for module in (upkeep, clerk, notifying):
        monkeypatch.setattr(module, "stopping", stopping)

    def run(start: Callable[[], threading.Thread], *parts: tuple[Any, str]) -> None:
        calls = {name: 0 for _, name in parts}

        def failing(name: str) -> Callable[..., None]:
            def fail(*_: Any) -> None:
                calls[name] += 1
                if min(calls.values()) >= 2:
                    stopping.set()
                raise OddError(name)

            return fail

        for module, name in parts:
            monkeypatch.setattr(module, name, failing(name))
        thread = start()
        thread.join(timeout=20)
        stopping.set()
        assert min(calls.values()) >= 2, calls

    return run


@pytest.mark.django_db(transaction=True)
def test_no_fault_keeps_the_upkeep_from_the_rest(
    rounds: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "takes_turn", lambda seconds: True)
    monkeypatch.setattr(upkeep, "TIDY_ROUNDS", 1)
    rounds(
        lambda: upkeep.start("me", ["cpu"]),
        (hosts, "greet"), (hosts, "beat"), (gpus, "record"), (settling, "settle"),
        (leases, "reap"), (intake, "is_waiting"), (hosts, "free_devices"),
        (celery, "ask_to_tidy"),
    )  # fmt: skip


def test_no_fault_ends_the_clerk(rounds: Callable[..., None]) -> None:
    rounds(clerk.start, (desk, "claim"))


def test_no_fault_ends_the_messenger(rounds: Callable[..., None]) -> None:
    rounds(notifying.start, (services, "note_ends"), (services, "deliver_due"))

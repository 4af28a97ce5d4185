"""Alive and ready: with servers that are really stopped."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from webapp.config.embedded import Servers
from webapp.monitoring import health

ROOT = Path(__file__).resolve().parents[2]


def test_alive_asks_nobody(db: None) -> None:
    with CaptureQueriesContext(connection) as queries:
        response = Client().get("/healthz")
    assert (response.status_code, response.content) == (200, b"alive\n")
    assert len(queries) == 0


def test_a_check_that_hangs_is_a_fault_in_time_and_is_not_begun_twice(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, over = [], threading.Event()

    def hanging() -> None:
        begun.append(1)
        over.wait(30)

    monkeypatch.setattr(health, "SECONDS", 0.2)
    monkeypatch.setattr(
        health, "_checks",
        {"hanging": health._Check(hanging), "well": health._Check(lambda: None)},
    )  # fmt: skip
    try:
        asked = time.monotonic()
        for _ in range(3):
            response = Client().get("/readyz")
            assert (response.status_code, response.content) == (503, b"hanging: not ready\n")
        assert time.monotonic() - asked < 3
        assert len(begun) == 1
    finally:
        over.set()


def test_an_answer_is_given_again_for_a_moment(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(health, "FRESH_SECONDS", 60.0)
    monkeypatch.setattr(health, "_checks", {"x": health._Check(lambda: asked.append(1))})
    for _ in range(5):
        assert Client().get("/readyz").status_code == 200
    assert asked == [1]


class Web:
    """A web process of its own over servers of its own."""

    def __init__(self, var: Path) -> None:
        self.var = var
        self.servers = Servers(var)
        self.servers.ensure_running()
        self.environment = {
            "PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"),
            "RETORT_VAR": str(var), "CELERY_BROKER_URL": self.servers.broker_url,
            "DATABASE_URL": f"postgres:///retort?host={self.servers.postgres_sockets}&user=postgres",
        }  # fmt: skip
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "granian", "--interface", "wsgi", "--host", "127.0.0.1",
             "--port", str(self.port), "--blocking-threads", "2", "--no-ws",
             "webapp.config.wsgi:application"],
            cwd=ROOT, env=self.environment, start_new_session=True,
        )  # fmt: skip

    def get(self, path: str) -> tuple[int, str]:
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            client.request("GET", path)
            response = client.getresponse()
            return response.status, response.read().decode()
        finally:
            client.close()

    def comes(self, path: str, status: int, body: str) -> bool:
        """Whether that is answered before long."""
        deadline = time.monotonic() + 60
        answer: object = None
        while time.monotonic() < deadline:
            try:
                answer = self.get(path)
            except OSError as error:
                answer = error
            if answer == (status, body):
                return True
            time.sleep(0.1)
        print(answer)
        return False

    def migrate(self) -> None:
        command = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
        subprocess.run(command, cwd=ROOT, env=self.environment, check=True)

    def end(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.servers.stop()


@pytest.fixture
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    var = tmp_path_factory.mktemp("var")
    for folder in (var, *var.parents):
        if folder.owner() == var.owner() and folder != folder.parent:
            folder.chmod(folder.stat().st_mode | 0o011)  # as root, PostgreSQL is another user
    web = Web(var)
    yield web
    web.end()


def test_readiness_names_what_is_stopped_and_nothing_else(web: Web) -> None:
    """Some 20 s: a database of its own is made, migrated and killed."""
    assert web.comes("/healthz", 200, "alive\n")
    assert web.comes("/readyz", 503, "migrations: not ready\n")
    web.migrate()
    assert web.comes("/readyz", 200, "ready\n")
    os.kill(int((web.var / "redis" / "redis.pid").read_text()), signal.SIGKILL)
    assert web.comes("/readyz", 503, "broker: not ready\n")
    files = web.var / "files"
    files.rename(web.var / "elsewhere")
    files.write_text("a disk that was not mounted")
    assert web.comes("/readyz", 503, "broker: not ready\nstorage: not ready\n")
    files.unlink()
    (web.var / "elsewhere").rename(files)
    web.servers.redis_socket.unlink()
    web.servers._start_redis()
    assert web.comes("/readyz", 200, "ready\n")
    web.servers._postgres_command("pg_ctl", "-m", "immediate", "-w", "stop")
    assert web.comes("/readyz", 503, "database: not ready\nmigrations: not ready\n")
    assert web.get("/healthz") == (200, "alive\n")
    status, body = web.get("/metrics")
    assert status == 200
    assert "retort_database_up 0.0" in body

"""Slow and large requests. What of them is left to a proxy stands in docs/security.md."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.test import Client

ROOT = Path(__file__).resolve().parents[3]
SLOW = 24  # connections; the server answers in 8 threads


@pytest.fixture
def server(process_environment: dict[str, str]) -> Iterator[int]:
    """The web server as ``manage.py up`` starts it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [
        sys.executable, "-m", "granian", "--interface", "wsgi", "--host", "127.0.0.1",
        "--port", str(port), "--blocking-threads", "8", "--no-ws",
        "webapp.config.wsgi:application",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, env=process_environment,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not served(port):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield port
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def served(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=3) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def opened(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.sendall(b"POST /accounts/login/ HTTP/1.1\r\nHost: 127.0.0.1\r\n")
    return connection


@pytest.mark.django_db(transaction=True)
def test_who_never_ends_the_headers_holds_nobody_up(server: int) -> None:
    held = [opened(server) for _ in range(SLOW)]
    try:
        for _ in range(5):
            assert served(server)
    finally:
        for each in held:
            each.close()


@pytest.mark.django_db
def test_a_form_that_is_too_large_is_refused(client: Client, user: object) -> None:
    client.force_login(user)  # type: ignore[arg-type]
    for body, kind in (
        ({"yaml": "x" * 3_000_000}, "application/x-www-form-urlencoded"),
        ("&".join(f"a{i}=1" for i in range(3000)), "application/x-www-form-urlencoded"),
    ):
        data = body if isinstance(body, str) else "yaml=" + body["yaml"]
        answer = client.post("/runs/distil/", data, content_type=kind)
        assert answer.status_code == 400
        assert b"too large" in answer.content

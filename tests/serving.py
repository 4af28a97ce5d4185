"""The web server as ``manage.py up`` starts it, on a free port of this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_SECONDS = 60


@contextmanager
def serving(environment: Mapping[str, str]) -> Iterator[int]:
    """A server that answers, by its port; killed at the end."""
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
        stderr=subprocess.DEVNULL, env=dict(environment),
    )  # fmt: skip
    try:
        deadline = time.monotonic() + _SECONDS
        while not served(port):
            assert time.monotonic() < deadline, "the web server does not answer"
            time.sleep(0.1)
        yield port
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def served(port: int) -> bool:
    """Whether the server at the port is well."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=3) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False

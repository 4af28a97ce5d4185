"""The web server of an installation, as `manage.py up` starts it, and what it takes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench._machine import ROOT

_TICKS = os.sysconf("SC_CLK_TCK")  # per second


@contextmanager
def served(var: Path) -> Iterator[tuple[str, int]]:
    """Serve the installation in ``var``: its address, and the process that all others descend from.

    Raises OSError where it does not answer within a minute.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, "manage.py", "up", "--workers", "0", "--port", str(port)], cwd=ROOT,
        env=os.environ | {"RETORT_VAR": str(var)}, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{address}/healthz", timeout=5).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        yield address, process.pid
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def cpu_seconds(pid: int) -> float:
    """What a process and all its descendants took, those that are gone included."""
    found, waiting = 0.0, [pid]
    children: dict[int, list[int]] = {}
    fields: dict[int, list[str]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                stat = (folder / "stat").read_text()
            except OSError:
                continue  # it ended while we looked
            fields[int(folder.name)] = each = stat.rpartition(")")[2].split()
            children.setdefault(int(each[1]), []).append(int(folder.name))
    while waiting:
        one = waiting.pop()
        waiting += children.get(one, [])
        if one in fields:
            found += sum(map(int, fields[one][11:15]))  # utime, stime, cutime, cstime
    return found / _TICKS

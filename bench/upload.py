"""Uploading a large checkpoint by tus: bytes per second, and the web server's memory by time.

    python -m bench.upload [--bytes 10G] [--piece 16M] [--parallel 3]

A web server and a database of its own. The files are sent in pieces, each with its SHA-256, as the
page sends them; then one more file in a single request, as other clients do. Memory is the resident
set of the web server's processes, added up, ten times a second.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench._installation import installation
from bench._machine import ROOT, write

UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
SAMPLE_SECONDS = 0.1


def size(text: str) -> int:
    """``10G`` → bytes."""
    return int(text[:-1]) * UNITS[text[-1]] if text[-1] in UNITS else int(text)


def resident(root: int) -> int:
    """Bytes in memory of a process and its descendants."""
    children: dict[int, list[int]] = {}
    sizes: dict[int, int] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                fields = (path / "stat").read_text().rpartition(")")[2].split()
                sizes[int(path.name)] = int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
            except OSError:
                continue  # it has ended meanwhile
            children.setdefault(int(fields[1]), []).append(int(path.name))
    total, todo = 0, [root]
    while todo:
        pid = todo.pop()
        total += sizes.get(pid, 0)
        todo += children.get(pid, [])
    return total


class Memory:
    """Samples the resident set until it is stopped."""

    def __init__(self, pid: int) -> None:
        self.samples: list[tuple[float, int]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(pid,), daemon=True)
        self._began = time.monotonic()
        self._thread.start()

    def _run(self, pid: int) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            self.samples.append((time.monotonic() - self._began, resident(pid)))

    def stop(self) -> dict[str, Any]:
        """Median of each tenth of the time, and the highest sample, in MiB."""
        self._over.set()
        self._thread.join()
        values = [value for _, value in self.samples]
        tenths = [
            sorted(values[len(values) * n // 10 : len(values) * (n + 1) // 10] or values[-1:])
            for n in range(10)
        ]
        return {
            "mib_by_tenths_of_the_time": [round(t[len(t) // 2] / 2**20, 1) for t in tenths],
            "peak_mib": round(max(values) / 2**20, 1),
        }


class Sender:
    """Sends one file over a connection of its own."""

    def __init__(self, port: int, address: str, headers: dict[str, str]) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        self._address = address
        self._headers = headers | {
            "Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream",
        }  # fmt: skip

    def send(self, offset: int, body: Any, length: int, digest: bytes | None) -> None:
        more = {"Upload-Offset": str(offset), "Content-Length": str(length)}
        if digest is not None:
            more["Upload-Checksum"] = "sha256 " + base64.b64encode(digest).decode()
        self._connection.request("PATCH", self._address, body, self._headers | more)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status != 204:
            raise RuntimeError(f"{answer.status}: {text[:300]!r}")


def send_in_pieces(sender: Sender, length: int, piece: int) -> None:
    block = os.urandom(min(piece, length))
    for offset in range(0, length, piece):
        part = block[: min(piece, length - offset)]
        sender.send(offset, part, len(part), hashlib.sha256(part).digest())


def send_at_once(sender: Sender, length: int) -> None:
    block = os.urandom(1 << 20)

    def body() -> Iterator[bytes]:
        for offset in range(0, length, len(block)):
            yield block[: min(len(block), length - offset)]

    sender.send(0, body(), length, None)


def measure(port: int, pid: int, upload: Any, headers: dict[str, str], options: Any) -> Any:
    """The files in pieces, then one file in one request."""
    from django.urls import reverse

    from webapp.checkpoints import uploads

    def sender(name: str, length: int) -> Sender:
        file = uploads.declare(upload, name, length)
        return Sender(port, reverse("checkpoints:tus-file", args=[upload.pk, file.pk]), headers)

    each = options.bytes // options.parallel
    senders = [sender(f"model-{n}.safetensors", each) for n in range(options.parallel)]
    idle = resident(pid)
    memory, began = Memory(pid), time.monotonic()
    with ThreadPoolExecutor(options.parallel) as pool:
        list(pool.map(lambda one: send_in_pieces(one, each, options.piece), senders))
    seconds = time.monotonic() - began
    pieces = memory.stop() | {
        "bytes": each * options.parallel, "seconds": round(seconds, 1),
        "mb_per_second": round(each * options.parallel / seconds / 1e6, 1),
    }  # fmt: skip
    whole = min(options.bytes, 2 << 30)
    single = sender("one.safetensors", whole)
    memory, began = Memory(pid), time.monotonic()
    send_at_once(single, whole)
    seconds = time.monotonic() - began
    at_once = memory.stop() | {
        "bytes": whole, "seconds": round(seconds, 1),
        "mb_per_second": round(whole / seconds / 1e6, 1),
    }  # fmt: skip
    return {
        "idle_mib": round(idle / 2**20, 1), "in_pieces": pieces, "in_one_request": at_once,
        "piece_bytes": options.piece, "parallel": options.parallel, "load": os.getloadavg()[0],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bytes", type=size, default=size("10G"), help="of all files (10G)")
    parser.add_argument("--piece", type=size, default=size("16M"), help="of a request (16M)")
    parser.add_argument("--parallel", type=int, default=3, help="files at a time (3)")
    options = parser.parse_args()
    with installation() as (var, owner):
        from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY

        from webapp.checkpoints import uploads
        from webapp.core.sessions import SessionStore

        session = SessionStore()
        session[SESSION_KEY] = str(owner.pk)
        session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
        session[HASH_SESSION_KEY] = owner.get_session_auth_hash()
        session.save()
        token = "b" * 32
        headers = {"Cookie": f"sessionid={session.session_key}; csrftoken={token}",
                   "X-CSRFToken": token}  # fmt: skip
        port = free_port()
        web = start_web(port, var)
        try:
            wait_for(port)
            upload = uploads.begin(owner, "large")
            found = measure(port, web.pid, upload, headers, options)
        finally:
            web.terminate()
            web.wait(timeout=30)
        print(json.dumps(found, indent=1))
        write("upload", found, packages=["Django", "granian", "psycopg"])


def start_web(port: int, var: Path) -> subprocess.Popen[bytes]:
    """The web server as ``manage.py up`` starts it; its lines go to a file."""
    log = (var / "web.log").open("ab")
    return subprocess.Popen(
        [sys.executable, "-m", "granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port",
         str(port), "--blocking-threads", "8", "--no-ws", "webapp.config.wsgi:application"],
        cwd=ROOT, stdout=log, stderr=log, start_new_session=True,
    )  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/accounts/login/")
            if connection.getresponse().status == 200:
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)


if __name__ == "__main__":
    main()

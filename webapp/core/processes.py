"""The processes of one terminal: web and workers, each in a group of its own, ended together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from types import TracebackType
from typing import IO, Self

from django.conf import settings

from webapp.core.errors import UserError

WEB_PROCESSES = min(os.cpu_count() or 1, 2)  # a page is made by one core; more are for workers
STOP_SECONDS = 20.0  # a worker ends its child and gives its shard back in that time


class Processes:
    """Starts processes and prints their lines with a prefix; leaving the context ends them all."""

    def __init__(self) -> None:
        self._running: dict[str, subprocess.Popen[str]] = {}
        self._printers: list[threading.Thread] = []

    def start(self, name: str, command: list[str], **environment: str) -> None:
        """Start ``python`` with ``command`` from the checkout's folder."""
        process = subprocess.Popen(
            [sys.executable, "-m", "webapp.core.attached", str(os.getpid()), *command],
            cwd=settings.BASE_DIR, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", env=os.environ | {"PYTHONUNBUFFERED": "1"} | environment,
        )  # fmt: skip
        self._running[name] = process
        assert process.stdout is not None
        printer = threading.Thread(target=_print_lines, args=(name, process.stdout), daemon=True)
        printer.start()
        self._printers.append(printer)

    def start_web(self, host: str, port: int) -> None:
        """Start the web server. Raises UserError when the address is taken."""
        _refuse_taken(host, port)
        self.start(
            "web",
            [
                "-m", "granian", "--interface", "wsgi", "--host", host, "--port", str(port),
                "--workers", str(WEB_PROCESSES), "--blocking-threads", "8", "--no-ws",
                # One that is told to end while it begins may never hear of it.
                "--workers-kill-timeout", "10",
                "webapp.config.wsgi:application",
            ],
        )  # fmt: skip

    def start_workers(self, count: int, **environment: str) -> None:
        """Start so many workers."""
        for number in range(1, count + 1):
            self.start(f"worker{number}", ["-m", "workers"], **environment)

    @property
    def names(self) -> list[str]:
        """What was started."""
        return list(self._running)

    def ended(self) -> str | None:
        """A sentence about the first process that ended by itself, None while all live."""
        for name, process in self._running.items():
            if process.poll() is not None:
                return f"{name} ended with exit code {process.returncode}; see its lines above."
        return None

    def wait(self) -> str:
        """Wait until a process ends by itself, and say which."""
        while (sentence := self.ended()) is None:
            time.sleep(0.5)
        return sentence

    def stop(self) -> None:
        """End every process: politely, then by force."""
        for process in self._running.values():
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for process in self._running.values():
            try:
                process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        for printer in self._printers:
            printer.join(timeout=5)
        self._running.clear()
        self._printers.clear()

    def __enter__(self) -> Self:
        # SIGTERM ends the processes as Ctrl-C does, also where a shell started us in the background
        # and had SIGINT ignored.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A second Ctrl-C must not leave anything running.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _refuse_taken(host: str, port: int) -> None:
    """The web server shares a port with whoever listens there already: ask before it does."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(
                f"port: {host}:{port} cannot be served ({os.strerror(error.errno or 0)}); "
                "stop what listens there or give another --port."
            ) from None


def _print_lines(name: str, stream: IO[str]) -> None:
    with stream:
        for line in stream:
            sys.stderr.write(f"{name} | {line}")
            sys.stderr.flush()

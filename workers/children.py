"""A child process: started in a session of its own, spoken to in JSON lines, ended as a group.

Its environment holds allowed names only; its last lines of standard error are kept.
docs/architecture.md lists the messages, evaluator/child.py is the other end.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from django.conf import settings

from evaluator.sandbox import box
from webapp.core import logs
from webapp.endpoints.services import KEY_VARIABLE
from webapp.runs import stages
from webapp.runs.models import Stage
from workers import endings, processor_time

LOG_LINES = 50
LOG_LINE_CHARACTERS = 2000
END_SECONDS = 10.0  # for a child that was told to end

# What a child may know of our environment: no database, no broker, no keys.
ALLOWED = frozenset(
    (
        *("PATH", "HOME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV"),
        *("XDG_CACHE_HOME", "HF_HOME", "HF_HUB_OFFLINE", "TOKENIZERS_PARALLELISM"),
        *("CUDA_HOME", "CUDA_PATH", "OMP_NUM_THREADS", "MKL_NUM_THREADS"),
        box.UNSAFE_VARIABLE,  # who gave up isolation did so for the judge, which is a child
    )
)
# The key of the endpoint that a stage asks: its child's environment is the only place for it.
SECRETS = frozenset({KEY_VARIABLE})
ALLOWED_PREFIXES = ("LC_", "VLLM_", "NCCL_", "TORCH_", "PYTORCH_", "TRITON_")

logger = logging.getLogger(__name__)
of_child = logging.getLogger("child")  # what children say on standard error


def child_environment(
    devices: Sequence[str], secrets: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The child's environment; ``devices`` are the ones it may see, none for the CPU.

    ``secrets`` are what this stage needs of ``SECRETS``, and no other stage's child is told.
    """
    secrets = secrets or {}
    assert secrets.keys() <= SECRETS, "a secret that no child may know"
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in ALLOWED or name.startswith(ALLOWED_PREFIXES)
    }
    own = {"CUDA_VISIBLE_DEVICES": ",".join(devices), "PYTHONUNBUFFERED": "1"}
    return kept | own | dict(secrets)


def child_command(stage: Stage, spec: Path) -> list[str]:
    """What is started for a stage."""
    return [sys.executable, "-m", stages.REGISTRY[stage.kind].module, "stage", str(spec)]


class Child:
    """A child process with its event queue and the tail of its log."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.events: queue.Queue[dict[str, Any]] = queue.Queue()
        self._tail: deque[str] = deque(maxlen=LOG_LINES)
        self._messages: queue.Queue[str | None] = queue.Queue()  # None is the end
        self._oom_kills = endings.oom_kills()
        self.heard = time.monotonic()  # when the child last said something
        self._cpu_seconds = 0.0
        self._secrets = [environment[name] for name in SECRETS if environment.get(name)]
        self.ids: Mapping[str, Any] = {}  # what its log's lines are about
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            cwd=settings.BASE_DIR, env=environment, start_new_session=True,
            text=True, encoding="utf-8", errors="replace",
        )  # fmt: skip
        self._readers = [
            threading.Thread(target=target, args=(stream,), daemon=True)
            for target, stream in (
                (self._read_events, self._process.stdout),
                (self._read_log, self._process.stderr),
            )
        ]
        self._writer = threading.Thread(target=self._write_messages, daemon=True)
        for thread in (*self._readers, self._writer):
            thread.start()

    @property
    def pid(self) -> int:
        """Process id, which is also its group's."""
        return self._process.pid

    @property
    def cpu_seconds(self) -> float:
        """CPU time that it has taken, with its descendants; what was last known once it is gone."""
        if self._process.returncode is None:
            self._note_cpu_seconds()
        return self._cpu_seconds

    @property
    def log_tail(self) -> str:
        """The last lines of standard error."""
        return "\n".join(self._tail)

    def send(self, message: dict[str, Any]) -> None:
        """Have one message written, and do not wait: a child that hangs reads nothing.

        A child that is dead already is noticed by its exit, not here.
        """
        self._messages.put(json.dumps(message) + "\n")

    @property
    def oom_killed(self) -> bool:
        """Whether the kernel has killed for want of memory since the child was started."""
        now = endings.oom_kills()
        return any(count > self._oom_kills.get(path, count) for path, count in now.items())

    def exited(self) -> bool:
        """Whether it ended. It is not reaped, so that its process group stays its own."""
        flags = os.WEXITED | os.WNOWAIT | os.WNOHANG
        return self._process.returncode is not None or (
            os.waitid(os.P_PID, self.pid, flags) is not None
        )

    def wait(self, seconds: float) -> bool:
        """Wait for the end; False when it still lives after ``seconds``."""
        deadline = time.monotonic() + seconds
        while not self.exited():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def drained(self) -> None:
        """Wait until everything that the ended child wrote has been read."""
        for reader in self._readers:
            reader.join(timeout=END_SECONDS)

    def kill(self, grace_seconds: float = 0.0) -> int:
        """End the whole process group and return the exit code (negative: the signal)."""
        if self._process.returncode is None:
            if grace_seconds and not self.exited():
                self._signal(signal.SIGTERM)
                self.wait(grace_seconds)
            self._note_cpu_seconds()  # while its descendants are still to be found
            self._signal(signal.SIGKILL)  # also what the child may have left in its group
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            self._note_cpu_seconds()
        code = self._process.wait()
        self.drained()
        self._messages.put(None)
        self._writer.join(timeout=END_SECONDS)
        return code

    def _note_cpu_seconds(self) -> None:
        self._cpu_seconds = max(self._cpu_seconds, processor_time.of(self.pid))

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            logger.debug("the child's process group is gone")

    def _without_secrets(self, line: str) -> str:
        for secret in self._secrets:
            line = line.replace(secret, logs.STRUCK_OUT)
        return line

    def _write_messages(self) -> None:
        stream = self._process.stdin
        assert stream is not None
        try:
            with stream:
                while (line := self._messages.get()) is not None:
                    stream.write(line)
                    stream.flush()
        except BrokenPipeError:
            logger.info("the child has closed its input", extra={"pid": self.pid})

    def _read_events(self, stream: IO[str]) -> None:
        with stream:
            for line in map(self._without_secrets, stream):
                try:
                    event = json.loads(line)
                    event["event"]
                except (ValueError, KeyError, TypeError):
                    self._tail.append(f"(not an event) {line.rstrip()[:LOG_LINE_CHARACTERS]}")
                    continue
                self.heard = time.monotonic()
                self.events.put(event)

    def _read_log(self, stream: IO[str]) -> None:
        with stream:
            for line in map(self._without_secrets, stream):
                # A progress bar writes many states of one line; the last one is what it says.
                text = line.rstrip("\n").rpartition("\r")[2].rstrip()
                if text := text[:LOG_LINE_CHARACTERS]:
                    self._tail.append(text)
                    of_child.info("%s", text, extra=dict(self.ids))

"""One stage's child process: started, fed, listened to, and ended whatever happens.

The child runs in a session of its own, so its whole process group can be killed; its environment
holds allowed names only; its last lines of standard error are kept. docs/architecture.md lists the
messages, evaluator/child.py is the other end.
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
import uuid
from collections import deque
from pathlib import Path
from typing import IO, Any

from django.conf import settings
from django.db import Error, connection

from evaluator.errors import StoreError
from webapp.core.errors import UserError
from webapp.runs import files, leases, stages
from webapp.runs.leases import Claim, LeaseLostError
from webapp.runs.models import Stage

LOG_LINES = 50
LOG_LINE_CHARACTERS = 2000
END_SECONDS = 10.0  # for a child that was told to end
TERM_SECONDS = 5.0  # between SIGTERM and SIGKILL
CHECK_SECONDS = 1.0  # how soon a cancel is noticed

# What a child may know of our environment: no database, no broker, no keys.
ALLOWED = frozenset(
    (
        *("PATH", "HOME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV"),
        *("XDG_CACHE_HOME", "HF_HOME", "HF_HUB_OFFLINE", "TOKENIZERS_PARALLELISM"),
        *("CUDA_HOME", "CUDA_PATH", "OMP_NUM_THREADS", "MKL_NUM_THREADS"),
    )
)
ALLOWED_PREFIXES = ("LC_", "VLLM_", "NCCL_", "TORCH_", "PYTORCH_", "TRITON_")

logger = logging.getLogger(__name__)


def child_environment(device: str | None) -> dict[str, str]:
    """The child's environment; ``device`` is the one it may see, None for the CPU."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in ALLOWED or name.startswith(ALLOWED_PREFIXES)
    }
    return kept | {"CUDA_VISIBLE_DEVICES": device or "", "PYTHONUNBUFFERED": "1"}


def child_command(stage: Stage, spec: Path) -> list[str]:
    """What is started for a stage."""
    return [sys.executable, "-m", stages.REGISTRY[stage.kind].module, "stage", str(spec)]


class Child:
    """A child process with its event queue and the tail of its log."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.events: queue.Queue[dict[str, Any]] = queue.Queue()
        self._tail: deque[str] = deque(maxlen=LOG_LINES)
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
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        """Process id, which is also its group's."""
        return self._process.pid

    @property
    def log_tail(self) -> str:
        """The last lines of standard error."""
        return "\n".join(self._tail)

    def send(self, message: dict[str, Any]) -> None:
        """Write one message. A child that is dead already is noticed by its exit, not here."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            logger.info("the child has closed its input", extra={"pid": self.pid})

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
            self._signal(signal.SIGKILL)  # also what the child may have left in its group
        code = self._process.wait()
        self.drained()
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:  # what was still buffered is for nobody now
            logger.debug("the child's input was closed")
        return code

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            logger.debug("the child's process group is gone")

    def _read_events(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                try:
                    event = json.loads(line)
                    event["event"]
                except (ValueError, KeyError, TypeError):
                    self._tail.append(f"(not an event) {line.rstrip()[:LOG_LINE_CHARACTERS]}")
                    continue
                self.events.put(event)

    def _read_log(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                # A progress bar writes many states of one line; the last one is what it says.
                text = line.rstrip("\n").rpartition("\r")[2].rstrip()
                if text:
                    self._tail.append(text[:LOG_LINE_CHARACTERS])


def exit_sentence(code: int) -> tuple[str, bool]:
    """Say in a sentence how a child ended that said nothing itself; whether to try again."""
    if code >= 0:
        return f"The stage's process ended early with exit code {code}; see the log.", False
    name = signal.Signals(-code).name
    hint = {
        signal.SIGKILL: " (out of memory?)",
        signal.SIGSEGV: " (a crash inside a native library)",
    }.get(signal.Signals(-code), "")
    return f"The stage's process was killed by {name}{hint}; see the log.", True


class _Heartbeat:
    """Renews a lease every third of it and notices within a second when it is lost."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._over = threading.Event()
        self.lost = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, so that nothing is renewed any more."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        renewed = time.monotonic()
        third = settings.RETORT_LEASE_SECONDS / 3
        try:
            while not self._over.wait(min(CHECK_SECONDS, third)):
                try:
                    asked = time.monotonic()
                    due = asked - renewed >= third
                    if not (leases.renew if due else leases.is_held)(self._claim):
                        self.lost.set()
                        return
                    renewed = asked if due else renewed
                except Error:
                    # The database may be back before the lease runs out; after that, we lost it.
                    logger.warning("lease not renewed", exc_info=True)
                    connection.close()
                    if time.monotonic() - renewed > settings.RETORT_LEASE_SECONDS:
                        self.lost.set()
                        return
        finally:
            connection.close()


def supervise(
    stage: Stage, claim: Claim, worker: str, *, device: str | None, stopping: threading.Event
) -> None:
    """Do ``claim`` and every further shard of the stage that can be claimed, in one child."""
    try:
        spec = _write_spec(stage, device)
    except Exception as error:
        # Nothing the child could be told: the run must say so instead of hanging.
        leases.fail_shard(claim, f"The stage cannot start: {error}", transient=False)
        raise
    child = Child(child_command(stage, spec), child_environment(device))
    current: Claim | None = claim
    try:
        while current is not None:
            if not _do_shard(child, current, stopping):
                return
            current = None if stopping.is_set() else leases.claim_shard(stage.pk, worker)
        child.send({"end": True})
        child.wait(END_SECONDS)
    except LeaseLostError:
        logger.info("lease lost; the child is ended", extra={"stage": stage.pk})
    except Exception as error:
        # Not the child's doing: a bounded number of tries, then the run says what happened.
        sentence = f"The worker failed ({type(error).__name__}): {error}"
        if current is not None and leases.is_held(current):
            leases.fail_shard(current, sentence, transient=True, log_tail=child.log_tail)
        raise
    finally:
        child.kill(TERM_SECONDS)


def _write_spec(stage: Stage, device: str | None) -> Path:
    folder = files.stage_folder(stage)
    files.segments_folder(stage).mkdir(parents=True, exist_ok=True)
    spec = stages.build_spec(stage, "cuda" if device else "cpu")
    part = folder / f".spec-{uuid.uuid4().hex}.json"
    part.write_text(json.dumps(spec, ensure_ascii=False, indent=1))
    part.replace(folder / "spec.json")
    return folder / "spec.json"


def _do_shard(child: Child, claim: Claim, stopping: threading.Event) -> bool:
    """Feed one shard and take in its events; False when the child is of no use any more.

    Raises LeaseLostError when the shard is no longer ours.
    """
    heartbeat = _Heartbeat(claim)
    try:
        child.send(
            {
                "shard": claim.shard_id,
                "lease": claim.token.hex,
                "work": dict(claim.work),
                "accepted": list(claim.accepted),
            }
        )
        while True:
            if heartbeat.lost.is_set():
                raise LeaseLostError("the lease is no longer ours")
            if stopping.is_set():
                child.kill(TERM_SECONDS)
                leases.release_shard(claim)
                return False
            try:
                event = child.events.get(timeout=0.2)
            except queue.Empty:
                if child.exited():
                    return _ended(child, claim)
                continue
            finished = _take_in(child, claim, event)
            if finished is not None:
                return finished
    finally:
        heartbeat.stop()


def _ended(child: Child, claim: Claim) -> bool:
    """The child is gone: what it still said counts, then its end is the failure."""
    child.drained()
    while not child.events.empty():
        finished = _take_in(child, claim, child.events.get())
        if finished is not None:
            return finished
    sentence, transient = exit_sentence(child.kill())
    leases.fail_shard(claim, sentence, transient=transient, log_tail=child.log_tail)
    return False


def _take_in(child: Child, claim: Claim, event: dict[str, Any]) -> bool | None:
    """Do what an event says; True when the shard is done, False when it failed, None: go on."""
    try:
        match event["event"]:
            case "ready":
                leases.engine_ready(claim, event["engine"])
            case "progress":
                leases.record_progress(
                    claim, done=event["done"], total=event["total"],
                    unit=event["unit"], tokens=event["tokens"],
                )  # fmt: skip
            case "segment":
                leases.accept_segment(
                    claim, name=event["name"], sha256=event["sha256"], size_bytes=event["bytes"]
                )
            case "metric":
                leases.add_training_point(claim, step=event["step"], values=event["values"])
            case "done":
                leases.finish_shard(claim, event["result"])
                return True
            case "failed":
                return _fail(child, claim, event["error"], transient=event["transient"])
            case unknown:
                return _fail(child, claim, f"The child said {unknown!r}, which is no event.")
    except (StoreError, stages.IncompleteError) as error:
        return _fail(child, claim, str(error), transient=True)
    except UserError as error:
        return _fail(child, claim, error.sentence)
    return None


def _fail(child: Child, claim: Claim, sentence: str, *, transient: bool = False) -> bool:
    child.wait(1.0)  # the traceback follows the event
    child.kill(TERM_SECONDS)
    leases.fail_shard(claim, sentence, transient=transient, log_tail=child.log_tail)
    return False

"""The child's side of a stage: shards come in as JSON lines, events go out as JSON lines.

A worker starts ``python -m evaluator stage SPEC.json`` or ``python -m distiller stage SPEC.json``
in a process group of its own, feeds it one shard after another on standard input and reads events
from standard output, so that a model is loaded once per worker and stage. docs/architecture.md
lists every message. Whatever else prints to standard output goes to standard error instead, whose
last lines the worker keeps.
"""

from __future__ import annotations

import json
import math
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from evaluator.errors import InputError
from evaluator.store import SealedSegment

Spec = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ShardRequest:
    """One leased shard: its work, and the segments of earlier leases that were accepted."""

    shard: int
    lease: str
    work: Mapping[str, Any]
    accepted: tuple[str, ...] = field(default=())

    @property
    def prefix(self) -> str:
        """What the names of this lease's segments start with."""
        return f"{self.shard:08d}-{self.lease}"


class Reporter:
    """Writes one shard's events. Thread-safe: each event is one write."""

    def __init__(self, stream: IO[str], request: ShardRequest | None = None) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._head: dict[str, Any] = (
            {} if request is None else {"shard": request.shard, "lease": request.lease}
        )

    def _emit(self, event: str, **values: Any) -> None:
        line = json.dumps({"event": event, **self._head, **values}, ensure_ascii=False)
        with self._lock:
            self._stream.write(line + "\n")
            self._stream.flush()

    def ready(self, **engine: Any) -> None:
        """The model is loaded; ``engine`` describes it (name, versions, dtype, hardware)."""
        self._emit("ready", engine=engine)

    def progress(self, done: int, total: int, *, unit: str, tokens: int = 0) -> None:
        """Units and tokens done of this shard so far (earlier leases' accepted rows included)."""
        self._emit("progress", done=done, total=total, unit=unit, tokens=tokens)

    def segment(self, sealed: SealedSegment) -> None:
        """A segment is sealed in the stage's segments folder and asks to be accepted."""
        self._emit(
            "segment",
            name=sealed.name,
            rows=sealed.rows,
            bytes=sealed.bytes,
            sha256=sealed.sha256,
        )

    def metric(self, step: int, **values: float) -> None:
        """One logged training step: loss, learning_rate, grad_norm, tokens_per_second."""
        self._emit("metric", step=step, values=values)

    def saved(self, folder: Path) -> None:
        """A state to go on from lies in the folder, until there is a newer one."""
        self._emit("saved", folder=str(folder))

    def usage(self, *, prompt_tokens: int, completion_tokens: int, uncounted: int) -> None:
        """Tokens drawn under this lease so far; ``uncounted`` samples came without counts."""
        self._emit(
            "usage",
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            uncounted=uncounted,
        )

    def done(self, result: Mapping[str, Any]) -> None:
        """The shard is finished; ``result`` is what its stage kind promises."""
        self._emit("done", result=dict(result))

    def failed(self, sentence: str, *, transient: bool) -> None:
        """The shard failed; ``sentence`` says why and what to do."""
        self._emit("failed", error=sentence, transient=transient)


class StageHandler(Protocol):
    """Does the shards of one stage. Its constructor loads what all shards need."""

    def run(self, request: ShardRequest, report: Reporter) -> Mapping[str, Any]:
        """Do one shard and return its result."""
        ...


HandlerFactory = Callable[[Spec, Reporter], StageHandler]


def serve(spec_path: Path, factories: Mapping[str, HandlerFactory]) -> int:
    """Carry out shards of the stage described in ``spec_path`` until told to end.

    Returns the exit code: 0 after ``{"end": true}``, 1 after a failed shard. When standard input
    ends without that word the worker is dead, and this whole process group dies too.
    """
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    requests: queue.Queue[ShardRequest | None] = queue.Queue()
    watchdog = _Watchdog()
    for target, arguments in ((_read_requests, (requests, watchdog)), (watchdog.run, ())):
        threading.Thread(target=target, args=arguments, daemon=True).start()
    report = Reporter(events)
    try:
        spec: Spec = json.loads(spec_path.read_text())
        if spec.get("kind") not in factories:
            raise InputError(
                f"spec: kind {spec.get('kind')!r} is not one of {', '.join(factories)}."
            )
        handler = factories[spec["kind"]](spec, report)
    except Exception as error:  # the boundary of the process: its worker reads events, not exits
        _report_failure(report, error)
        return 1
    while (request := requests.get()) is not None:
        report = Reporter(events, request)
        try:
            report.done(handler.run(request, report))
        except Exception as error:  # likewise
            _report_failure(report, error)
            return 1
    return 0


def _report_failure(report: Reporter, error: Exception) -> None:
    """Name the failure in one sentence; the traceback goes to the log tail."""
    traceback.print_exc(file=sys.stderr)
    sentence = str(error).strip() or type(error).__name__
    report.failed(sentence, transient=bool(getattr(error, "transient", False)))


class _Watchdog:
    """Ends this process group when the worker has been silent for as long as its lease lasts.

    A worker that hangs, or is stopped, loses its shard to another; its child must not go on using
    the devices that the other one is given.
    """

    def __init__(self) -> None:
        self._deadline = math.inf

    def beat(self, seconds: float) -> None:
        """The worker lives, and holds the lease for so much longer."""
        self._deadline = time.monotonic() + seconds

    def run(self) -> None:
        """Look twice a second."""
        while time.monotonic() < self._deadline:
            time.sleep(0.5)
        os.killpg(0, signal.SIGKILL)


def _read_requests(requests: queue.Queue[ShardRequest | None], watchdog: _Watchdog) -> None:
    for line in sys.stdin:
        message = json.loads(line)
        if "beat" in message:
            watchdog.beat(float(message["beat"]))
            continue
        if message.get("end"):
            requests.put(None)
            return
        requests.put(
            ShardRequest(
                shard=int(message["shard"]),
                lease=str(message["lease"]),
                work=message["work"],
                accepted=tuple(message.get("accepted", ())),
            )
        )
    os.killpg(0, signal.SIGKILL)

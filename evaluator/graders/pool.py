"""Verdicts from killable processes: one for every request, in order, whatever the input."""

from __future__ import annotations

import itertools
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from evaluator import graders
from evaluator.errors import GraderError
from evaluator.graders.code import grade_program
from evaluator.graders.extraction import answer_part, is_looped, trimmed
from evaluator.protocol import GradingPolicy, Thinking
from evaluator.records import Completion, FinishReason, Outcome, Problem, Verdict
from evaluator.sandbox.packing import judge_problem

WINDOW_PER_JOB = 256  # requests that are looked at before the first one's verdict is there
CACHE_ENTRIES = 50_000
START_SECONDS = 120.0  # wall time; a process that is not ready by then never will be
WALL_FACTOR = 120  # a comparison that waits, instead of computing, is ended after so many limits
ATTEMPTS = 2  # a process that dies for no reason of the comparison's own is started once more


@dataclass(frozen=True, slots=True)
class GradeRequest:
    """A completion, or a prediction that is a final answer already, and what it should equal."""

    kind: str
    gold: str
    thinking: Thinking
    policy: GradingPolicy
    completion: Completion | None = None
    prediction: str | None = None
    options: tuple[int, ...] = ()  # multiple choice: the order in which the options were shown
    problem: Problem | None = None  # programs: whose tests they are judged on


@dataclass(frozen=True, slots=True)
class _Comparison:
    """Whether two answers are the same.

    ``intractable`` says what was used up, or what failed on these two, before they could be shown
    to be: then they count as different. ``error`` says why nothing is known.
    """

    equal: bool
    cpu_seconds: float = 0.0
    intractable: str | None = None
    error: str | None = None


_Key = tuple[str, str, str, GradingPolicy]  # the grader with its version, both answers


class _LimitReachedError(Exception):
    """The comparison itself used up what it was given: another try would too."""


class _NoRoomError(Exception):
    """Memory or stack ran out, perhaps because of what the process had compared before."""


class _Worker:
    """One comparing process, started when first needed."""

    def __init__(self, limits: dict[str, float]) -> None:
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = b""

    def ask(self, key: _Key) -> _Comparison:
        """Compare; raises _LimitReachedError, _NoRoomError, or GraderError when it died."""
        process = self._process or self._start()
        identity, first, second, policy = key
        kind = identity.partition("/")[0]
        request = {"kind": kind, "first": first, "second": second, "policy": policy.model_dump()}
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise GraderError(self._bury()) from None
        answer = self._read(self._limits["cpu_seconds"] * WALL_FACTOR)
        if "error" in answer:
            self.close()  # what fills its memory goes with it
            raise _NoRoomError(answer["error"])
        if "fault" in answer:
            raise GraderError(f"the grader failed: {answer['fault']}")
        return _Comparison(
            equal=bool(answer["equal"]),
            cpu_seconds=float(answer["cpu_seconds"]),
            intractable=answer.get("undecided"),
        )

    def _start(self) -> subprocess.Popen[bytes]:
        root = str(Path(__file__).resolve().parents[2])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "evaluator.graders.worker", json.dumps(self._limits)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={"PATH": os.defpath, "LANG": "C.UTF-8", "PYTHONPATH": root, "PYTHONHASHSEED": "0",
                 "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
        self._buffer = b""
        self._read(START_SECONDS)
        return self._process

    def _read(self, wall_seconds: float) -> dict[str, Any]:
        """Read one line; a process that ends or stays silent is buried."""
        process = self._process
        assert process is not None
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(wall_seconds):
                    self.close()
                    raise GraderError(f"the grader was silent for {wall_seconds:.0f} s")
                chunk = os.read(process.stdout.fileno(), 65536)
                if not chunk:
                    raise GraderError(self._bury())
                self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _bury(self) -> str:
        """Reap a process that ended by itself and say why; _LimitReachedError for CPU time."""
        process = self._process
        assert process is not None
        self.close()
        if process.returncode == -signal.SIGPROF:
            raise _LimitReachedError(
                f"comparing took over {self._limits['cpu_seconds']:g} s of CPU time"
            )
        return f"the grader's process ended with status {process.returncode}"

    def close(self) -> None:
        """End the process, if there is one."""
        process, self._process = self._process, None
        if process is None:
            return
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    continue  # what was still to be written to it no longer matters
        try:
            process.wait(timeout=1.0)  # it ends when its standard input does
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class GraderPool:
    """Grades completions with ``jobs`` processes. Thread-safe; a context manager.

    A comparison is given ``cpu_seconds`` of CPU time and its process ``memory_bytes``. Both are
    the process's own, so a loaded machine gives the same verdicts. Two answers that are not shown
    to be equal within them are different: every other try would end the same way, and a score
    that waits for it would never be complete. A process that dies in any other way is an error.
    Programs are judged ``jobs`` at a time, each in sandboxes of its own.
    """

    def __init__(
        self,
        jobs: int = 2,
        cpu_seconds: float = 5.0,
        memory_bytes: int = 1 << 30,
        cache_entries: int = CACHE_ENTRIES,
    ) -> None:
        limits = {"cpu_seconds": cpu_seconds, "memory_bytes": memory_bytes}
        self._jobs = jobs
        self._cpu_seconds = cpu_seconds
        self._workers = [_Worker(limits) for _ in range(jobs)]
        self._idle = list(self._workers)
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(max_workers=jobs, thread_name_prefix="grader")
        self._cache_entries = cache_entries
        self._known: OrderedDict[_Key, bool | Future[_Comparison]] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop comparisons not yet begun and end the processes."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        for worker in self._workers:
            worker.close()

    def grade(self, requests: Iterable[GradeRequest]) -> Iterator[Verdict]:
        """Yield one verdict per request, in order.

        Raises SandboxUnavailableError where programs are to be judged and cannot be isolated.
        """
        pending: deque[Verdict | Future[Verdict] | tuple[str, Future[_Comparison]]] = deque()
        remaining = iter(requests)
        while True:
            room = self._jobs * WINDOW_PER_JOB - len(pending)
            pending.extend(self._begin(request) for request in itertools.islice(remaining, room))
            if not pending:
                return
            head = pending.popleft()
            if isinstance(head, Future):
                yield head.result()
            else:
                yield head if isinstance(head, Verdict) else _finish(*head)

    def equal(
        self, kind: str, pairs: Sequence[tuple[str, str]], policy: GradingPolicy
    ) -> list[bool]:
        """Tell which pairs of answers are the same; a pair that cannot be compared is not."""
        results = [self._compare(kind, first, second, policy) for first, second in pairs]
        return [result if isinstance(result, bool) else result.result().equal for result in results]

    def _begin(
        self, request: GradeRequest
    ) -> Verdict | Future[Verdict] | tuple[str, Future[_Comparison]]:
        """Decide what needs no evaluation; hand the rest to a process."""
        if request.problem is not None and graders.get(request.kind).untrusted:
            return self._threads.submit(_judge, request)
        answer, missing = _extract(request)
        if missing is not None:
            return missing
        assert answer is not None
        options = request.options or (request.completion.options if request.completion else ())
        answer = graders.get(request.kind).unshuffled(answer, options)
        result = self._compare(request.kind, request.gold, answer, request.policy)
        if isinstance(result, bool):
            return _verdict(_Comparison(result), answer)
        return answer, result

    def _compare(
        self, kind: str, first: str, second: str, policy: GradingPolicy
    ) -> bool | Future[_Comparison]:
        grader = graders.get(kind)
        # One order for both, so that a verdict cannot depend on it.
        key: _Key = (grader.identity, min(first, second), max(first, second), policy)
        with self._lock:
            known = self._known.get(key)
        if known is not None:
            return known
        verdict: bool | Future[_Comparison] | None = grader.equal_fast(key[1], key[2], policy)
        with self._lock:
            if verdict is None:
                verdict = self._known.get(key)  # another thread may have asked meanwhile
            if verdict is None:
                verdict = self._threads.submit(self._ask, key)
            self._known[key] = verdict
            while len(self._known) > self._cache_entries:
                self._known.popitem(last=False)
            return verdict

    def _ask(self, key: _Key) -> _Comparison:
        """Have an idle process compare. A failure is an error in the result, kept in no cache."""
        with self._lock:
            worker = self._idle.pop()
        comparison = _Comparison(False, error="not compared")
        try:
            for _ in range(ATTEMPTS):
                try:
                    comparison = worker.ask(key)
                    break
                except _LimitReachedError as limit:
                    comparison = _Comparison(False, self._cpu_seconds, intractable=str(limit))
                    break
                except _NoRoomError as limit:
                    comparison = _Comparison(False, intractable=str(limit))
                except GraderError as error:
                    comparison = _Comparison(False, error=str(error))
        finally:
            with self._lock:
                self._idle.append(worker)
                if comparison.error is not None:
                    self._known.pop(key, None)
        return comparison


def _judge(request: GradeRequest) -> Verdict:
    """Judge a program; the tests are unpacked now, so that those of waiting ones take no room."""
    if request.completion is None:
        return Verdict(Outcome.ENGINE_ERROR, reason="no completion came")
    assert request.problem is not None
    return grade_program(judge_problem(request.problem), request.completion, request.thinking)


def _extract(  # noqa: PLR0911 - the outcomes in their order
    request: GradeRequest,
) -> tuple[str | None, Verdict | None]:
    """The answer to compare, or the verdict of a completion that has none (PROTOCOLS §2)."""
    completion = request.completion
    if completion is None:
        if request.prediction is None:
            return None, Verdict(Outcome.ENGINE_ERROR, reason="no completion came")
        if not request.prediction.strip():
            return None, Verdict(Outcome.NO_ANSWER, reason="the prediction is blank")
        return trimmed(graders.get(request.kind).read(request.prediction, request.policy)), None
    if completion.error is not None or completion.finish_reason is FinishReason.ERROR:
        return None, Verdict(Outcome.ENGINE_ERROR, reason=completion.error or "the engine failed")
    part = answer_part(completion.text, request.thinking, completion.reasoning)
    grader = graders.get(request.kind)
    answer = None if part is None else grader.extract(part, request.policy)
    if answer is not None:
        return answer, None
    why = "still thinking" if part is None else "no answer found"
    if is_looped(completion.text) or (part is None and is_looped(completion.reasoning or "")):
        return None, Verdict(Outcome.LOOPED, reason=f"{why}; the end repeats itself")
    if completion.finish_reason is FinishReason.LENGTH:
        return None, Verdict(Outcome.TRUNCATED, reason=f"{why}; stopped by the token limit")
    return None, Verdict(Outcome.NO_ANSWER, reason=why)


def _finish(answer: str, future: Future[_Comparison]) -> Verdict:
    return _verdict(future.result(), answer)


def _verdict(comparison: _Comparison, answer: str) -> Verdict:
    if comparison.error is not None:
        return Verdict(Outcome.GRADER_ERROR, answer, comparison.error, comparison.cpu_seconds)
    if comparison.intractable is not None:
        reason = f"not shown to equal the reference: {comparison.intractable}"
        return Verdict(Outcome.WRONG, answer, reason, comparison.cpu_seconds)
    outcome = Outcome.CORRECT if comparison.equal else Outcome.WRONG
    reason = "equals the reference" if comparison.equal else "differs from the reference"
    return Verdict(outcome, answer, reason, comparison.cpu_seconds)

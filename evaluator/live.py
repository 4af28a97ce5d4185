"""The score of a run while it is drawn: completions are graded beside the drawing."""

from __future__ import annotations

import math
import queue
import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from evaluator import runner
from evaluator.benchmarks import BenchmarkSpec
from evaluator.graders.pool import GraderPool
from evaluator.protocol import Protocol
from evaluator.records import Completion, Outcome, Problem
from evaluator.statistics import mean_interval
from evaluator.store import Row

# Texts that wait for a grader. What finds no room is graded after the drawing, from the disk.
_BACKLOG_CHARACTERS = 16 << 20


@dataclass(frozen=True, slots=True)
class Estimate:
    """pass@1 over the samples graded so far, with its 95 % interval over ``problems`` problems."""

    value: float
    low: float
    high: float
    samples: int
    problems: int


class RunningScore:
    """Grades in a thread of its own; a context manager. Verdicts are kept in :attr:`rows`."""

    def __init__(
        self,
        problems: Sequence[Problem],
        *,
        benchmark: BenchmarkSpec,
        protocol: Protocol,
        pool: GraderPool,
    ) -> None:
        self.rows: list[Row] = []
        self._problems = runner.by_id(problems)
        self._benchmark = benchmark
        self._protocol = protocol
        self._pool = pool
        self._counts: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])  # right, scored
        self._waiting: queue.SimpleQueue[Completion | None] = queue.SimpleQueue()
        self._waiting_characters = 0
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._grade, name="running score", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()  # the rest is graded by all of the pool's processes
        self._waiting.put(None)
        self._thread.join()
        if kind is None and self._error is not None:
            raise self._error

    def add(self, completion: Completion) -> None:
        """Take a completion to be graded soon; one that is an error is left alone."""
        if completion.error is not None:
            return
        size = len(completion.text)
        with self._lock:
            if self._waiting_characters and self._waiting_characters + size > _BACKLOG_CHARACTERS:
                return
            self._waiting_characters += size
        self._waiting.put(completion)

    def estimate(self) -> Estimate | None:
        """The score so far; None before the first verdict."""
        with self._lock:
            counts = [(right, scored) for right, scored in self._counts.values() if scored]
        if not counts:
            return None
        means = [right / scored for right, scored in counts]
        value = math.fsum(means) / len(means)
        low, high = mean_interval(means)
        return Estimate(value, low, high, sum(scored for _, scored in counts), len(means))

    def _grade(self) -> None:
        try:
            while (completion := self._waiting.get()) and not self._stopped.is_set():
                self._grade_one(completion)
        except BaseException as error:  # of this thread: the caller's raises it when it is left
            self._error = error

    def _grade_one(self, completion: Completion) -> None:
        problem = self._problems[completion.problem_id]
        request = runner.grade_request(
            completion, problem, benchmark=self._benchmark, protocol=self._protocol
        )
        [verdict] = self._pool.grade([request])
        with self._lock:
            self._waiting_characters -= len(completion.text)
            self.rows.append(runner.graded_row(completion.key, verdict))
            if not verdict.outcome.is_error:
                count = self._counts[completion.problem_id]
                count[0] += verdict.outcome is Outcome.CORRECT
                count[1] += 1

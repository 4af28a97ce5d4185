"""Filters over questions, in this process or several: every trace gets one fate, in order."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import Any, BinaryIO

from distiller import filters
from distiller.errors import DistillerError
from distiller.filters.answer import Answer, cannot_check
from distiller.filters.base import Context, JudgeVerdict, Key, Reason, Trace
from distiller.inputs import Place
from distiller.recipe import FilterChoice
from distiller.traces import is_text, tagged
from evaluator.graders.pool import GraderPool
from evaluator.protocol import Thinking
from evaluator.records import Completion, Problem

DRAWN, DECONTAMINATION = "drawn", "decontamination"
BATCH_TRACES = 64
BATCHES_PER_PROCESS = 4  # handed out before the first one's fates are asked for
WORTH_A_PROCESS = 512  # traces; fewer are done before another process has started
CACHE_ENTRIES = 4096  # answers come again within a question, hardly later


@dataclass(frozen=True, slots=True)
class Question:
    """All traces of a problem and of its near copies, with what is known of the problem."""

    traces: Sequence[tuple[Problem, Place]]
    contaminated: frozenset[str] = frozenset()  # ids of problems that a benchmark holds
    guesses: Mapping[str, Sequence[Completion]] = field(default_factory=dict)
    judged: Mapping[Key, JudgeVerdict] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a trace: its row as a JSON line, and where and why it was dropped."""

    line: bytes
    step: str | None = None
    reason: Reason = None

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> Fate:
        """The fate that a row of kept.jsonl or dropped.jsonl tells of."""
        return cls(json_line(row), row.get("step"), row.get("reason"))


@dataclass(frozen=True, slots=True)
class Settings:
    """What the filters do, as another process can be told it."""

    choices: tuple[FilterChoice, ...]
    thinking: Thinking
    decontaminate: bool
    show_verdicts: bool = False  # columns ``rule`` and ``judge`` in the rows

    def steps(self) -> list[str]:
        """Names of the steps, in their order."""
        before = [DRAWN, DECONTAMINATION] if self.decontaminate else [DRAWN]
        return [*before, *(rule.name for rule in filters.create(self.choices))]


class Sieve:
    """Decides the fates of a question's traces. A context manager; keeps its files open."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._rules = filters.create(settings.choices)
        self._pool = GraderPool(1, cache_entries=CACHE_ENTRIES)
        self._files: dict[Path, BinaryIO] = {}

    def close(self) -> None:
        """Close the files and end the grader's process."""
        self._pool.close()
        for file in self._files.values():
            file.close()

    def sift(self, questions: Iterable[Question]) -> list[Fate]:
        """The fates of the questions' traces, in order."""
        return [fate for question in questions for fate in self._fates(question)]

    def _fates(self, question: Question) -> Iterator[Fate]:
        traces = [Trace(problem, self._read(place)) for problem, place in question.traces]
        context = Context(
            thinking=self._settings.thinking,
            pool=self._pool,
            drawn=traces,
            guesses=question.guesses,
            judged=question.judged,
        )
        verdicts = self._verdicts(traces, context)
        fates: list[tuple[str, str] | None] = [None] * len(traces)
        for at, (trace, (_, place)) in enumerate(zip(traces, question.traces, strict=True)):
            if place.repeated:
                fates[at] = (DRAWN, "same_key")
            elif trace.completion.error is not None:
                fates[at] = (DRAWN, "engine_error")
            elif not is_text(trace.text, trace.completion.reasoning):
                fates[at] = (DRAWN, "not_text")
            elif trace.problem.id in question.contaminated:
                fates[at] = (DECONTAMINATION, "contaminated")
        for rule in self._rules:
            left = [at for at, fate in enumerate(fates) if fate is None]
            if not left:
                break
            reasons = rule.reasons([traces[at] for at in left], context)
            for at, reason in zip(left, reasons, strict=True):
                if reason is not None:
                    fates[at] = (rule.name, reason)
        for trace, columns, fate in zip(traces, verdicts, fates, strict=True):
            step, reason = fate or (None, None)
            row = trace.to_json(reason) | columns | ({} if step is None else {"step": step})
            yield Fate(json_line(row), step, reason)

    def _verdicts(self, traces: Sequence[Trace], context: Context) -> list[dict[str, Any]]:
        """The columns ``rule`` and ``judge`` of each trace: two opinions, kept apart."""
        rule = next((rule for rule in self._rules if isinstance(rule, Answer)), None)
        if rule is None or not self._settings.show_verdicts:
            return [{} for _ in traces]
        verdicts = context.verdicts(traces, grader=rule.grader, policy=rule.policy)
        return [
            {
                "rule": "cannot_check"
                if cannot_check(verdict, trace.problem.answer, rule.grader)
                else str(verdict.outcome),
                "judge": context.judged.get(trace.completion.key),
            }
            for trace, verdict in zip(traces, verdicts, strict=True)
        ]

    def _read(self, place: Place) -> Completion:
        if place.path not in self._files:
            self._files[place.path] = place.path.open("rb")
        return tagged(place.read(self._files[place.path]), self._settings.thinking)


def json_line(row: Mapping[str, Any]) -> bytes:
    """A row as a line of JSON; half a surrogate pair, which is no text, is escaped."""
    try:
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(row).encode() + b"\n"


def sift(
    questions: Iterable[Question], *, settings: Settings, total: int, jobs: int
) -> Iterator[Fate]:
    """Yield the fates of all questions' traces, in order, whatever the number of processes."""
    processes = min(jobs, total // WORTH_A_PROCESS)
    if processes < 2:  # one, and that is this one
        sieve = Sieve(settings)
        try:
            for batch in _batches(questions):
                yield from sieve.sift(batch)
        finally:
            sieve.close()
        return
    pool = ProcessPoolExecutor(
        processes, mp_context=get_context("spawn"), initializer=_begin, initargs=(settings,)
    )
    try:
        waiting: deque[Future[list[Fate]]] = deque()
        for batch in _batches(questions):
            waiting.append(pool.submit(_sift_here, batch))
            while len(waiting) > processes * BATCHES_PER_PROCESS:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    except BrokenProcessPool as error:
        raise DistillerError(
            "filter: a process was ended from outside, perhaps for want of memory; start it again "
            "with fewer --jobs."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _batches(questions: Iterable[Question]) -> Iterator[list[Question]]:
    batch: list[Question] = []
    size = 0
    for question in questions:
        batch.append(question)
        size += len(question.traces)
        if size >= BATCH_TRACES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


_here: Sieve | None = None


def _begin(settings: Settings) -> None:
    """Make a process ready: it ends when its parent does, and leaves Ctrl-C to it."""
    global _here  # noqa: PLW0603 - a process has one
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    _here = Sieve(settings)


def _sift_here(questions: list[Question]) -> list[Fate]:
    assert _here is not None
    return _here.sift(questions)

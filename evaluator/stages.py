"""The stages that this library carries out for a worker: evaluate, import, grade.

docs/architecture.md lists their specs, their work and what they report.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from evaluator import benchmarks, engines, passport, runner
from evaluator.child import HandlerFactory, Reporter, ShardRequest, Spec
from evaluator.engines.replay import read_completions
from evaluator.errors import InputError
from evaluator.graders.pool import GraderPool
from evaluator.protocol import Protocol, engine_settings, first_mistake
from evaluator.records import Completion, Outcome, problems_hash
from evaluator.store import Row, SegmentWriter, read_segment

_PROGRESS_SECONDS = 0.5


class _Stage:
    """What all stages' specs hold."""

    def __init__(self, spec: Spec) -> None:
        try:
            self.segments = Path(spec["segments_folder"])
            self.benchmark = benchmarks.get(spec["benchmark"])
            self.protocol = Protocol.model_validate(spec["protocol"])
            self.problems = runner.load_problems(Path(spec["problems_file"]))
        except KeyError as error:
            raise InputError(f"spec: {error.args[0]} is missing.") from error
        except ValidationError as error:
            raise InputError(f"protocol: {first_mistake(error)}") from error
        if self.protocol.samples is None:
            raise InputError("protocol: samples must be filled in before a stage begins.")
        self.samples = self.protocol.samples

    def accepted_rows(self, request: ShardRequest) -> list[Row]:
        """Rows that earlier leases of this shard delivered."""
        return list(_rows(self.segments / name for name in request.accepted))

    def writer(self, request: ShardRequest, report: Reporter) -> SegmentWriter:
        """A writer for this lease's segments, which reports each one that is sealed."""
        return SegmentWriter(self.segments, prefix=request.prefix, on_seal=report.segment)


class EvaluateStage(_Stage):
    """Draws completions; the model stays loaded from shard to shard."""

    def __init__(self, spec: Spec, report: Reporter) -> None:
        super().__init__(spec)
        settings = dict(spec.get("engine") or {})
        settings |= engine_settings(self.protocol)
        self._by_id = runner.by_id(self.problems)
        self._engine = engines.create(settings)
        report.ready(**self._engine.describe())

    def run(self, request: ShardRequest, report: Reporter) -> Mapping[str, Any]:
        """Draw all samples of the shard's problems."""
        wanted = [str(problem_id) for problem_id in request.work["problem_ids"]]
        if unknown := [problem_id for problem_id in wanted if problem_id not in self._by_id]:
            raise InputError(f"work: problem {unknown[0]!r} is not in the problems file.")
        earlier = self.accepted_rows(request)
        tokens = sum(row.get("completion_tokens") or 0 for row in earlier)
        progress = throttled(
            lambda done, total, now: report.progress(
                done, total, unit="completions", tokens=tokens + now
            )
        )
        with _Drawn(report) as drawn:
            rendered = runner.draw(
                [self._by_id[problem_id] for problem_id in wanted],
                prompt=self.protocol.prompt or self.benchmark.prompt,
                protocol=self.protocol,
                samples=self.samples,
                engine=self._engine,
                writer=self.writer(request, report),
                # An error is no completion: it is drawn again.
                done={
                    (row["problem_id"], row["sample"]) for row in earlier if row["error"] is None
                },
                on_progress=progress,
                on_completion=drawn.add,
            )
        return {"rendered_prompt": rendered}


class _Drawn:
    """The tokens of a lease's completions, told as they come: they cost, whatever becomes of it."""

    def __init__(self, report: Reporter) -> None:
        self._report = report
        self._prompt = self._completion = self._uncounted = 0
        self._told = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._tell()

    def add(self, completion: Completion) -> None:
        """Count one that the engine gave, unless it is an error."""
        if completion.error is not None:
            return
        self._prompt += completion.prompt_tokens or 0
        self._completion += completion.completion_tokens or 0
        self._uncounted += completion.prompt_tokens is None or completion.completion_tokens is None
        if time.monotonic() - self._told >= _PROGRESS_SECONDS:
            self._tell()

    def _tell(self) -> None:
        self._told = time.monotonic()
        self._report.usage(
            prompt_tokens=self._prompt,
            completion_tokens=self._completion,
            uncounted=self._uncounted,
        )


class ImportStage(_Stage):
    """Takes in completions made elsewhere, all or none."""

    def __init__(self, spec: Spec, report: Reporter) -> None:
        super().__init__(spec)
        self._file = Path(spec["completions_file"])
        self._model: str | None = spec.get("model")
        report.ready(name="replay")

    def run(self, request: ShardRequest, report: Reporter) -> Mapping[str, Any]:
        """Check the whole file, then write its rows."""
        completions = read_completions(self._file, model=self._model)
        known = runner.by_id(self.problems)
        for completion in completions:
            if completion.problem_id not in known:
                raise InputError(
                    f"{self._file.name}: problem {completion.problem_id!r} is not in benchmark "
                    f"{self.benchmark.name}; check the problem_id column."
                )
            if completion.sample >= self.samples:
                raise InputError(
                    f"{self._file.name}: problem {completion.problem_id!r} has a sample "
                    f"{completion.sample}, but the protocol has {self.samples} "
                    "(0 is the first); raise samples or leave the row out."
                )
        done = {(row["problem_id"], row["sample"]) for row in self.accepted_rows(request)}
        with self.writer(request, report) as writer:
            for completion in completions:
                if completion.key not in done:
                    writer.append(completion.to_json())
        report.progress(len(completions), len(completions), unit="completions")
        return {"rows": len(completions)}


class GradeStage(_Stage):
    """Grades what an evaluate or import stage delivered, and computes the metrics."""

    def __init__(self, spec: Spec, report: Reporter) -> None:
        super().__init__(spec)
        self._spec = spec
        self._by_id = runner.by_id(self.problems)
        self._passport = passport.make(
            self.protocol,
            benchmark=self.benchmark.name,
            problems_hash=problems_hash(self.problems),
            samples=self.samples,
            engine=spec["engine"],
        )
        report.ready(name="grade", jobs=spec["jobs"])

    def run(self, request: ShardRequest, report: Reporter) -> Mapping[str, Any]:
        """Grade every completion once; go on after the verdicts of an earlier lease.

        A shard of some problems delivers verdicts only; the one that names none has all verdicts
        that there are among its accepted segments, and computes the metrics.
        """
        ids: list[str] | None = request.work.get("problem_ids")
        wanted = self.problems if ids is None else [self._by_id[problem_id] for problem_id in ids]
        names = {problem.id for problem in wanted}
        completions = (
            row
            for row in _rows(Path(path) for path in self._spec["segment_files"])
            if ids is None or row["problem_id"] in names
        )
        protocol = runner.as_served(
            self.protocol,
            engine=self._spec["engine"],
            completions=_rows(Path(path) for path in self._spec["segment_files"]),
        )
        total = len(wanted) * self.samples
        graded = self.accepted_rows(request)
        done = sum(not Outcome(row["outcome"]).is_error for row in graded)
        progress = throttled(
            lambda done, total, _: report.progress(done, total, unit="verdicts", tokens=0)
        )
        with (
            self.writer(request, report) as writer,
            GraderPool(int(self._spec["jobs"])) as pool,
        ):

            def keep(row: Row) -> None:
                nonlocal done
                writer.append(row)
                done += 1
                progress(done, total, 0)

            common: dict[str, Any] = {
                "benchmark": self.benchmark, "protocol": protocol, "pool": pool,
                "on_row": keep, "graded": graded,
            }  # fmt: skip
            if ids is not None:
                runner.give_verdicts(wanted, completions, **common)
                metrics = None
            else:
                metrics = runner.grade(
                    wanted,
                    completions,
                    samples=self.samples,
                    passport=self._passport,
                    **common,
                )
        report.progress(done, total, unit="verdicts")
        return {} if metrics is None else {"metrics": metrics}


FACTORIES: dict[str, HandlerFactory] = {
    "evaluate": EvaluateStage,
    "import": ImportStage,
    "grade": GradeStage,
}


def throttled(progress: runner.Progress) -> runner.Progress:
    """``progress``, called at most twice a second, and always for the last unit."""
    latest = -_PROGRESS_SECONDS

    def call(done: int, total: int, tokens: int) -> None:
        nonlocal latest
        now = time.monotonic()
        if done >= total or now - latest >= _PROGRESS_SECONDS:
            latest = now
            progress(done, total, tokens)

    return call


def _rows(paths: Iterable[Path]) -> Iterator[Row]:
    for path in paths:
        for _, row in read_segment(path):
            yield row

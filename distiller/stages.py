"""The stages that this library carries out for a worker: preflight, generate, filter, train.

docs/architecture.md lists their specs, their work and what they report.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
import weakref
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from distiller import generation, preflight, refining, traces
from distiller.errors import InputError
from distiller.inputs import lines
from distiller.recipe import Recipe
from distiller.sieve import Fate
from evaluator import engines, runner
from evaluator.child import HandlerFactory, Reporter, ShardRequest, Spec
from evaluator.protocol import first_mistake
from evaluator.records import Completion
from evaluator.stages import throttled
from evaluator.store import SegmentWriter, read_segment

TALLY_SECONDS = 2.0  # between two reports of what a shard has drawn
SPOOL = "spool-"  # folders for flat copies of the traces begin so


class GenerateStage:
    """Draws traces; the teacher stays loaded from shard to shard."""

    def __init__(self, spec: Spec, report: Reporter) -> None:
        self._recipe = _recipe(spec)
        self._segments = Path(_field(spec, "segments_folder"))
        problems = runner.load_problems(Path(_field(spec, "prompts_file")))
        self._prompts = runner.by_id(problems)
        self._engine = engines.create(_field(spec, "engine"))
        report.ready(**self._engine.describe())

    def run(self, request: ShardRequest, report: Reporter) -> Mapping[str, Any]:
        """Draw what the shard's prompts need and earlier leases did not deliver."""
        wanted = [str(problem_id) for problem_id in request.work["problem_ids"]]
        if unknown := [problem_id for problem_id in wanted if problem_id not in self._prompts]:
            raise InputError(f"work: problem {unknown[0]!r} is not in the prompts file.")
        earlier = (
            Completion.from_json(row)
            for name in request.accepted
            for _, row in read_segment(self._segments / name)
            if row.get("error") is None
        )

        def metric(tally: generation.Tally) -> None:
            # A stage's shards are drawn side by side: each has its tally under its own number.
            report.metric(request.shard, **tally.to_json())

        with generation.Verifier(self._recipe) as verifier, _Spent(report) as spent:
            tally = generation.draw(
                [self._prompts[problem_id] for problem_id in wanted],
                recipe=self._recipe,
                engine=self._engine,
                writer=SegmentWriter(self._segments, prefix=request.prefix, on_seal=report.segment),
                verifier=verifier,
                earlier=earlier,
                on_progress=throttled(
                    lambda done, total, tokens: report.progress(
                        done, total, unit="traces", tokens=tokens
                    )
                ),
                on_tally=_all_of(spent, _every(TALLY_SECONDS, metric)),
            )
        metric(tally)
        return {"teacher_prompt": traces.protocol(self._recipe).prompt}


class _Spent:
    """Tokens drawn under this lease, told as they come: a tally's, less what it began with."""

    def __init__(self, report: Reporter) -> None:
        self._report = report
        self._before: generation.Tally | None = None
        self._latest = generation.Tally()
        self._told = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._tell()  # they cost, whatever becomes of it

    def __call__(self, tally: generation.Tally) -> None:
        """Take in a tally; the first one is of earlier leases alone."""
        self._before = self._before or replace(tally)
        self._latest = tally
        if time.monotonic() - self._told >= TALLY_SECONDS:
            self._tell()

    def _tell(self) -> None:
        self._told = time.monotonic()
        now, before = self._latest, self._before or self._latest
        self._report.usage(
            prompt_tokens=now.prompt_tokens - before.prompt_tokens,
            completion_tokens=now.completion_tokens - before.completion_tokens,
            uncounted=now.uncounted - before.uncounted,
        )


def _all_of(*calls: generation.OnTally) -> generation.OnTally:
    def call(tally: generation.Tally) -> None:
        for each in calls:
            each(tally)

    return call


class PreflightStage:
    """Looks for faults before anything is drawn; what it finds lies in preflight.json."""

    def __init__(self, spec: Spec, report: Reporter) -> None:
        self._recipe = _recipe(spec)
        self._prompts = runner.load_problems(Path(_field(spec, "prompts_file")))
        self._benchmarks = refining.load_benchmarks(_field(spec, "benchmark_files"))
        self._base = Path(_field(spec, "base_model"))
        self._folder = Path(_field(spec, "stage_folder"))
        report.ready(name="preflight")

    def run(self, request: ShardRequest, report: Reporter) -> Mapping[str, Any]:
        """Write the report. Raises InputError with the first error, so that the run ends here."""
        from distiller.probe import probe

        prompts = self._prompts[: self._recipe.prompts.limit]
        found = preflight.run(
            self._recipe, self._base, prompts, benchmarks=self._benchmarks, probe=probe
        )
        part = self._folder / f"preflight-{request.lease}.part"
        part.write_text(json.dumps(found.to_json(), ensure_ascii=False, indent=1), encoding="utf-8")
        part.replace(self._folder / "preflight.json")
        preflight.require_passed(found.checks)
        return {"warnings": len(found.of(preflight.Level.WARNING))}


class FilterStage:
    """Turns accepted traces into a corpus, in one shard or, where there are many, in several."""

    def __init__(self, spec: Spec, report: Reporter) -> None:
        self._recipe = _recipe(spec)
        self._prompts = runner.load_problems(Path(_field(spec, "prompts_file")))
        self._benchmarks = refining.load_benchmarks(_field(spec, "benchmark_files"))
        self._traces = [Path(path) for path in _field(spec, "segment_files")]
        self._segments = Path(_field(spec, "segments_folder"))
        self._folder = Path(_field(spec, "stage_folder"))
        self._base = Path(_field(spec, "base_model"))
        self._jobs = int(_field(spec, "jobs"))
        self._material: refining.Material | None = None
        report.ready(name="filter", jobs=self._jobs)

    def run(self, request: ShardRequest, report: Reporter) -> Mapping[str, Any]:
        """Deliver the fates of some questions' traces; or write this lease's folder."""
        progress = throttled(
            lambda done, total, _: report.progress(done, total, unit="checks", tokens=0)
        )
        common: dict[str, Any] = {
            "prompts": self._prompts,
            "recipe": self._recipe,
            "benchmarks": self._benchmarks,
            "base_model": self._base,
            "out": self._folder / request.lease,
            "on_progress": lambda done, total: progress(done, total, 0),
        }
        if request.work.get("merge"):
            return self._merge(request, common)
        if "problem_ids" in request.work:
            return self._sift(request, report, progress)
        return refining.refine(self._traces, jobs=self._jobs, **common)

    def _sift(
        self, request: ShardRequest, report: Reporter, progress: runner.Progress
    ) -> Mapping[str, Any]:
        """Fates come in one order always, so that a lease goes on where an earlier one stopped."""
        ids = request.work["problem_ids"]
        material = self._gathered()
        total = material.index.count(material.chosen(ids))
        done = sum(1 for name in request.accepted for _ in lines(self._segments / name))
        fates = material.fates(
            refining.settings_of(self._recipe), jobs=self._jobs, ids=ids, after=done
        )
        with SegmentWriter(self._segments, prefix=request.prefix, on_seal=report.segment) as writer:
            for fate in fates:
                writer.append(json.loads(fate.line))
                done += 1
                progress(done, total, 0)
        return {"traces": total}

    def _merge(self, request: ShardRequest, common: Mapping[str, Any]) -> Mapping[str, Any]:
        self._material = None
        for left_behind in self._folder.glob(f"{SPOOL}*"):  # by children that were killed
            shutil.rmtree(left_behind)
        accepted = [self._segments / name for name in request.accepted]
        fates = (Fate.of_row(row) for path in accepted for _, row in read_segment(path))
        traces = sum(1 for path in accepted for _ in lines(path))
        return refining.merge(fates, traces=traces, **common)

    def _gathered(self) -> refining.Material:
        """What all of this child's shards need, gathered once."""
        if self._material is None:
            spool = tempfile.mkdtemp(prefix=SPOOL, dir=self._folder)
            weakref.finalize(self, shutil.rmtree, spool, ignore_errors=True)
            self._material = refining.Material.gather(
                self._traces,
                prompts=self._prompts,
                recipe=self._recipe,
                benchmarks=self._benchmarks,
                spool=Path(spool),
            )
        return self._material


class TrainStage:
    """Fine-tunes the base on the corpus; goes on where an earlier lease stopped."""

    def __init__(self, spec: Spec, report: Reporter) -> None:
        self._spec = spec
        self._recipe = _recipe(spec)
        report.ready(name="train", device=_field(spec, "device"))

    def run(self, request: ShardRequest, report: Reporter) -> Mapping[str, Any]:
        """Write this lease's checkpoint."""
        from distiller import sft

        folder = Path(_field(self._spec, "stage_folder"))
        trained = sft.train(
            Path(_field(self._spec, "corpus")),
            Path(_field(self._spec, "base_model")),
            self._recipe.training,
            folder / request.lease / "checkpoint",
            resume=Path(_field(self._spec, "resume")),
            device=_field(self._spec, "device"),
            processes=self._spec.get("processes"),
            on_step=lambda step, values: report.metric(step, **values),
            on_progress=throttled(
                lambda done, total, tokens: report.progress(
                    done, total, unit="steps", tokens=tokens
                )
            ),
            on_save=report.saved,
        )
        return {
            "checkpoint": str(trained.checkpoint),
            "content_hash": trained.content_hash,
            "steps": trained.steps,
            "loss": trained.loss,
        }


FACTORIES: dict[str, HandlerFactory] = {
    "preflight": PreflightStage,
    "generate": GenerateStage,
    "filter": FilterStage,
    "train": TrainStage,
}


def _every(seconds: float, report: generation.OnTally) -> generation.OnTally:
    """``report``, called at most so often."""
    latest = time.monotonic()

    def call(tally: generation.Tally) -> None:
        nonlocal latest
        if time.monotonic() - latest >= seconds:
            latest = time.monotonic()
            report(tally)

    return call


def _field(spec: Spec, name: str) -> Any:
    if name not in spec:
        raise InputError(f"spec: {name} is missing.")
    return spec[name]


def _recipe(spec: Spec) -> Recipe:
    try:
        return Recipe.model_validate(_field(spec, "recipe"))
    except ValidationError as error:
        raise InputError(f"recipe: {first_mistake(error)}") from error

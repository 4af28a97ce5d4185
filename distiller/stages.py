"""The stages that this library carries out for a worker: preflight, generate, filter, train.

docs/architecture.md lists their specs, their work and what they report.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from distiller import generation, preflight, refining, traces
from distiller.errors import InputError
from distiller.recipe import Recipe
from evaluator import engines, runner
from evaluator.child import HandlerFactory, Reporter, ShardRequest, Spec
from evaluator.protocol import first_mistake
from evaluator.records import Completion
from evaluator.stages import throttled
from evaluator.store import SegmentWriter, read_segment

TALLY_SECONDS = 2.0  # between two reports of what a shard has drawn


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

        with generation.Verifier(self._recipe) as verifier:
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
                on_tally=_every(TALLY_SECONDS, metric),
            )
        metric(tally)
        return {"teacher_prompt": traces.protocol(self._recipe).prompt}


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
    """Turns accepted traces into a corpus."""

    def __init__(self, spec: Spec, report: Reporter) -> None:
        self._spec = spec
        self._recipe = _recipe(spec)
        self._prompts = runner.load_problems(Path(_field(spec, "prompts_file")))
        self._benchmarks = refining.load_benchmarks(_field(spec, "benchmark_files"))
        report.ready(name="filter", jobs=_field(spec, "jobs"))

    def run(self, request: ShardRequest, report: Reporter) -> Mapping[str, Any]:
        """Write this lease's folder."""
        segments = [Path(path) for path in _field(self._spec, "segment_files")]
        progress = throttled(
            lambda done, total, _: report.progress(done, total, unit="checks", tokens=0)
        )
        return refining.refine(
            segments,
            prompts=self._prompts,
            recipe=self._recipe,
            benchmarks=self._benchmarks,
            base_model=Path(_field(self._spec, "base_model")),
            out=Path(_field(self._spec, "stage_folder")) / request.lease,
            jobs=int(_field(self._spec, "jobs")),
            on_progress=lambda done, total: progress(done, total, 0),
        )


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
            resume=folder / "resume",
            device=_field(self._spec, "device"),
            processes=self._spec.get("processes"),
            on_step=lambda step, values: report.metric(step, **values),
            on_progress=throttled(
                lambda done, total, tokens: report.progress(
                    done, total, unit="steps", tokens=tokens
                )
            ),
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

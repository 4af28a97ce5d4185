"""The stage kinds: which queue, which child, its configuration, and what follows when it is done.

docs/architecture.md lists the specs and results. A new kind is one entry of ``REGISTRY``.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from django.conf import settings
from django.db import transaction
from django.db.models import Sum

from distiller.recipe import Recipe
from evaluator import graders
from evaluator.protocol import Protocol, run_fingerprint
from webapp.benchmarks import services as benchmarks
from webapp.benchmarks.models import Benchmark, PromptSet
from webapp.checkpoints import services as checkpoints
from webapp.checkpoints.models import Checkpoint
from webapp.config import celery
from webapp.endpoints import services as endpoints
from webapp.runs import files, handover, ratings, redraw
from webapp.runs.launching import chats
from webapp.runs.models import Completion, Evaluation, Run, Shard, Stage

Spec = dict[str, Any]


class IncompleteError(Exception):
    """A child called a shard done whose rows did not all arrive."""


@dataclass(frozen=True, slots=True)
class StageKind:
    """One kind of stage. ``spec`` fills in what is not common to all kinds."""

    queue: str
    module: Literal["evaluator", "distiller"]
    spec: Callable[[Stage, str], Spec]
    on_finished: Callable[[Stage], None]


def build_spec(stage: Stage, device: str) -> Spec:
    """The child's whole configuration; ``device`` is ``cuda`` or ``cpu``."""
    common = {
        "kind": stage.kind,
        "stage_folder": str(files.stage_folder(stage)),
        "segments_folder": str(files.segments_folder(stage)),
    }
    return common | REGISTRY[stage.kind].spec(stage, device)


def write_spec(stage: Stage, device: str) -> Path:
    """Write the child's configuration into the stage's folder and return its path."""
    folder = files.stage_folder(stage)
    files.segments_folder(stage).mkdir(parents=True, exist_ok=True)
    spec = build_spec(stage, device)
    if stage.queue == celery.JUDGE:
        handover.offer_spec(stage, spec)
    part = folder / f".spec-{uuid.uuid4().hex}.json"
    part.write_text(json.dumps(spec, ensure_ascii=False, indent=1))
    part.replace(folder / "spec.json")
    return folder / "spec.json"


def ring(stage: Stage, *, times: int) -> None:
    """Send ``times`` doorbell messages to the stage's queue."""
    for _ in range(times):
        celery.ring(stage.pk, stage.queue)


def is_full(queue: str) -> bool:
    """Whether enough doorbells wait in the queue."""
    return celery.is_full(queue)


def queue_of(kind: str, evaluation: Evaluation | None, config: Mapping[str, Any]) -> str:
    """The queue of a new stage: ``judge`` where it runs programs that a model wrote."""
    if "endpoint" in config:  # the model runs elsewhere
        return celery.CPU
    if kind == "grade" and evaluation is not None and runs_programs(evaluation.benchmark.grader):
        return celery.JUDGE
    return REGISTRY[kind].queue


def secrets(stage: Stage) -> dict[str, str]:
    """What the child's environment alone may tell it. Raises UserError."""
    return endpoints.secrets_of(stage.config["endpoint"]) if "endpoint" in stage.config else {}


def runs_programs(grader: str) -> bool:
    """Whether the grader runs untrusted programs."""
    return graders.get(grader).untrusted


def engine_ready(stage: Stage, engine: Mapping[str, Any]) -> None:
    """Write down what draws an evaluation's completions."""
    if stage.evaluation is None or stage.kind != "evaluate":
        return
    evaluation = stage.evaluation
    fingerprint = run_fingerprint(
        Protocol.model_validate(evaluation.protocol),
        samples=evaluation.samples,
        engine=dict(engine),
    )
    Evaluation.objects.filter(pk=evaluation.pk).update(
        engine=dict(engine), run_fingerprint=fingerprint
    )


def check_complete(stage: Stage, shard: Shard, result: Mapping[str, Any]) -> None:
    """Refuse a shard whose completions, verdicts, or filtered traces are not all there."""
    if "problem_ids" not in shard.work:
        return
    if stage.kind == "filter":
        arrived = shard.segments.aggregate(rows=Sum("row_count", default=0))["rows"]
        if arrived != result["traces"]:
            raise IncompleteError(
                f"{arrived} of {result['traces']} filtered traces arrived; the rest is done again."
            )
        return
    if stage.evaluation is None:
        return
    ids = shard.work["problem_ids"]
    if stage.kind == "grade":
        missing = Completion.objects.filter(
            evaluation=stage.evaluation, problem__problem_id__in=ids, outcome=""
        ).count()
        if missing:
            raise IncompleteError(f"{missing} verdicts are missing; they are given again.")
        return
    if stage.kind != "evaluate":
        return
    expected = len(ids) * stage.evaluation.samples
    arrived = Completion.objects.filter(
        evaluation=stage.evaluation, problem__problem_id__in=ids
    ).count()
    if arrived != expected:
        raise IncompleteError(
            f"{arrived} of {expected} completions arrived; the rest is drawn again."
        )
    if shard.attempts <= redraw.REDRAWS and (
        failed := redraw.failed_samples(stage.evaluation, ids)
    ):
        raise IncompleteError(f"{failed} of {expected} samples failed; they are drawn again.")


# --- what the kinds' children are told


def _earlier(stage: Stage, kind: str) -> Stage:
    """The run's nearest earlier stage of that kind (and of the same evaluation, if any)."""
    same = stage.run.stages.filter(kind=kind, position__lt=stage.position)
    if stage.evaluation_id is not None:
        same = same.filter(evaluation_id=stage.evaluation_id)
    return same.order_by("-position")[0]


def _recipe(run: Run) -> Recipe:
    return Recipe.model_validate(run.config)


def _recipe_spec(run: Run) -> Spec:
    """The recipe as its child reads it: files by absolute paths."""
    return chats.located(_recipe(run)).model_dump(mode="json")


def _checkpoint_folder(pk: int) -> str:
    return str(files.store_path(Checkpoint.objects.get(pk=pk).path))


def _engine(stage: Stage, name: str, checkpoint: int, device: str) -> Spec:
    """What answers: the endpoint that the stage names, or a checkpoint's folder."""
    if "endpoint" in stage.config:
        return endpoints.engine_of(stage.config["endpoint"])
    engine: Spec = {"name": name, "model": _checkpoint_folder(checkpoint)}
    if device == "cuda" and stage.devices > 1:  # a CPU stands in for all of them
        engine["tensor_parallel"] = stage.devices
    return engine


def _prompts_file(stage: Stage) -> str:
    return str(files.store_path(PromptSet.objects.get(pk=stage.config["prompt_set"]).path))


def _segment_files(stage: Stage) -> list[str]:
    return [str(path) for path in files.accepted_segments(stage)]


def _evaluation(stage: Stage) -> Evaluation:
    assert stage.evaluation is not None, "evaluate, import and grade stages have an evaluation"
    return stage.evaluation


def _measurement(stage: Stage) -> Spec:
    evaluation = _evaluation(stage)
    return {
        "benchmark": evaluation.benchmark.name,
        "problems_file": str(benchmarks.problems_file(evaluation.benchmark)),
        "protocol": evaluation.protocol,
    }


def _generate(stage: Stage, device: str) -> Spec:
    recipe = _recipe(stage.run)
    return {
        "recipe": recipe.model_dump(mode="json"),
        "prompts_file": _prompts_file(stage),
        "engine": _engine(stage, recipe.generation.engine, stage.config["teacher"], device),
    }


def _newest_benchmarks() -> list[Benchmark]:
    """What prompts must not stand in: the newest version of every installed benchmark."""
    return list(Benchmark.objects.order_by("name", "-created_at").distinct("name"))


def _benchmarks_of(stage: Stage) -> list[Benchmark]:
    """The newest ones as the stage began: all its shards must look into the same."""
    with transaction.atomic():
        row = Stage.objects.select_for_update(no_key=True).get(pk=stage.pk)
        if "benchmarks" not in row.config:
            row.config["benchmarks"] = [each.pk for each in _newest_benchmarks()]
            row.save(update_fields=["config"])
    stage.config = row.config
    return list(Benchmark.objects.filter(pk__in=row.config["benchmarks"]).order_by("name"))


def _benchmark_files(among: Sequence[Benchmark]) -> dict[str, str]:
    return {
        f"{each.name}@{each.content_hash[:8]}": str(benchmarks.problems_file(each))
        for each in among
    }


def _preflight(stage: Stage, device: str) -> Spec:
    return {
        "recipe": _recipe_spec(stage.run),
        "prompts_file": _prompts_file(stage),
        "benchmark_files": _benchmark_files(_newest_benchmarks()),
        "base_model": _checkpoint_folder(stage.config["base"]),
    }


def _filter(stage: Stage, device: str) -> Spec:
    return {
        "recipe": _recipe_spec(stage.run),
        "prompts_file": _prompts_file(stage),
        "segment_files": _segment_files(_earlier(stage, "generate")),
        "benchmark_files": _benchmark_files(_benchmarks_of(stage)),
        "base_model": _checkpoint_folder(stage.config["base"]),
        "jobs": settings.RETORT_STAGE_JOBS,
    }


def _train(stage: Stage, device: str) -> Spec:
    processes = max(stage.devices, 1)
    return {
        "recipe": _recipe_spec(stage.run),
        "corpus": str(files.store_path(_earlier(stage, "filter").result["corpus"])),
        "base_model": _checkpoint_folder(stage.config["base"]),
        "device": device,
        "processes": processes,
        # A state is of so many processes on such a device.
        "resume": str(files.stage_folder(stage) / "resume" / f"{device}-{processes}"),
    }


def _evaluate(stage: Stage, device: str) -> Spec:
    checkpoint = _evaluation(stage).checkpoint
    assert checkpoint is not None, "the student is attached before its evaluation is queued"
    engine = _engine(stage, stage.config["engine"], checkpoint.pk, device)
    return _measurement(stage) | {"engine": engine}


def _import(stage: Stage, device: str) -> Spec:
    path = files.store_path(stage.config["completions_file"])
    model = stage.config.get("model")
    return _measurement(stage) | {"completions_file": str(path), "model": model}


def _grade(stage: Stage, device: str) -> Spec:
    evaluation = _evaluation(stage)
    return _measurement(stage) | {
        "segment_files": _segment_files(_earlier(stage, stage.config["grades"])),
        "engine": evaluation.engine,
        "jobs": settings.RETORT_STAGE_JOBS,
    }


# --- what follows


def _nothing(stage: Stage) -> None:
    """Rows and figures were taken in as they came."""


def _register_student(stage: Stage) -> None:
    """The trained folder becomes a checkpoint, and the student's evaluations get it."""
    run = stage.run
    folder, is_own = handover.trained(stage.result)
    student = checkpoints.register_folder(
        project=run.project,
        owner=run.owner,
        name=_recipe(run).student,
        folder=folder,
        parent=Checkpoint.objects.get(pk=stage.config["base"]),
        produced_by=run,
        move=is_own,
    )
    run.evaluations.filter(role="student").update(checkpoint=student)
    stage.result = stage.result | {"checkpoint": student.path, "checkpoint_id": student.pk}


def _keep_rendered_prompt(stage: Stage) -> None:
    prompt = stage.result["rendered_prompt"]
    Evaluation.objects.filter(stages=stage).update(rendered_prompt=prompt)


def _keep_metrics(stage: Stage) -> None:
    metrics = stage.result["metrics"] | ratings.rating_of(_evaluation(stage))
    # The hashes, too: a grader that has become another since the launch is another measurement.
    Evaluation.objects.filter(stages=stage).update(
        metrics=metrics,
        pass_at_1=metrics["pass@1"]["value"],
        measurement_hash=metrics["measurement_hash"],
        run_fingerprint=metrics["run_fingerprint"],
    )
    stage.result = {}  # the evaluation holds it


REGISTRY: dict[str, StageKind] = {
    "preflight": StageKind(celery.CPU, "distiller", _preflight, _nothing),
    "generate": StageKind(celery.GPU, "distiller", _generate, _nothing),
    "filter": StageKind(celery.CPU, "distiller", _filter, _nothing),
    "train": StageKind(celery.GPU, "distiller", _train, _register_student),
    "evaluate": StageKind(celery.GPU, "evaluator", _evaluate, _keep_rendered_prompt),
    "import": StageKind(celery.CPU, "evaluator", _import, _nothing),
    "grade": StageKind(celery.CPU, "evaluator", _grade, _keep_metrics),
}

"""Launching, cancelling and retrying runs: rows first, the doorbell after commit."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now

from distiller.recipe import Recipe
from evaluator import benchmarks as registry
from evaluator import graders
from evaluator.engines.replay import each_completion
from evaluator.errors import InputError
from evaluator.graders.extraction import detect_thinking
from evaluator.protocol import (
    MOST_SAMPLES,
    Protocol,
    Thinking,
    measurement_hash,
    preset,
    run_fingerprint,
    samples_for,
)
from evaluator.records import Completion
from webapp.benchmarks.models import Benchmark
from webapp.benchmarks.services import read_prompts
from webapp.checkpoints.models import Checkpoint
from webapp.checkpoints.services import completions_only
from webapp.core import store
from webapp.core.errors import UserError
from webapp.core.models import User
from webapp.endpoints import services as endpoints
from webapp.endpoints.models import Endpoint
from webapp.projects.access import place_for
from webapp.projects.models import Project
from webapp.runs import devices as grants
from webapp.runs import files, ingredients, leases, redraw, turns
from webapp.runs.devices import Devices
from webapp.runs.models import FINAL_STATES, Evaluation, Run, Shard, Stage, State
from webapp.runs.plans import (
    PlannedStage,
    create_stages,
    filter_stage,
    grading_stage,
    measuring_stages,
)


def launch_distillation(
    *,
    owner: User,
    project: Project | None = None,
    recipe: Recipe,
    priority: int = 0,
    devices: Devices | None = None,
) -> Run:
    """Start a distillation: check the recipe, generate, filter, train, then evaluate and grade.

    Every role of the recipe's evaluation plan is measured on every benchmark of it. ``priority``
    is the run's (turns.py), ``devices`` what the children of its stages are given (None: one each).
    Raises UserError naming the field that cannot be followed: the recipe's, ``priority``, or
    ``generate_devices``, ``train_devices``, ``evaluate_devices``.
    """
    project = place_for(owner, project)
    turns.check_priority(priority, owner)
    recipe, teacher, endpoint, base, prompt_set = ingredients.of_recipe(recipe, owner)
    plan = recipe.evaluation
    targets = [ingredients.newest_benchmark(name) for name in plan.benchmarks]
    prompts = [each.id for each in read_prompts(prompt_set)][: recipe.prompts.limit]
    config = {"teacher": teacher.pk, "base": base.pk, "prompt_set": prompt_set.pk}
    asked = {} if endpoint is None else {"endpoint": endpoint.pk}
    local = plan.engine or ("transformers" if endpoint else recipe.generation.engine)
    devices = devices or Devices()
    ingredients.check_devices(devices, "openai" if endpoint else recipe.generation.engine, local)
    with transaction.atomic():
        if endpoint is not None:
            endpoints.lock(endpoint, "teacher")
        run = Run.objects.create(
            kind=Run.Kind.DISTILLATION,
            name=recipe.name,
            config=recipe.model_dump(mode="json"),
            priority=priority,
            owner=owner,
            project=project,
        )
        plans = [
            PlannedStage("preflight", "Check the recipe", config),
            PlannedStage(
                "generate", "Generate traces", config | asked, unit="traces",
                problem_ids=prompts, chunk=recipe.generation.shard_prompts,
                samples=recipe.generation.samples, devices=devices.generate,
            ),
            filter_stage(config, prompts, recipe.generation.samples),
            PlannedStage("train", "Train the student", config, devices=devices.train),
        ]  # fmt: skip
        roles = {"base": base, "teacher": teacher, "student": None}
        for benchmark in targets:
            for role in plan.roles:
                evaluation = _evaluation(
                    run, roles[role], benchmark, plan.protocol,
                    engine="openai" if endpoint and role == "teacher" else local, role=role,
                )  # fmt: skip
                what = f"{role} on {benchmark.title}"
                plans += measuring_stages(evaluation, what, devices.evaluate)
        create_stages(run, plans)
    return run


def launch_check(*, owner: User, project: Project | None = None, recipe: Recipe) -> Run:
    """Only check a recipe, as a distillation by it begins: a run of one stage, without devices.

    Raises UserError.
    """
    project = place_for(owner, project)
    recipe, teacher, _, base, prompt_set = ingredients.of_recipe(recipe, owner)
    config = {"teacher": teacher.pk, "base": base.pk, "prompt_set": prompt_set.pk}
    with transaction.atomic():
        run = Run.objects.create(
            kind=Run.Kind.CHECK,
            name=f"Check of {recipe.name}"[:200],
            config=recipe.model_dump(mode="json"),
            owner=owner,
            project=project,
        )
        create_stages(run, [PlannedStage("preflight", "Check the recipe", config)])
    return run


def launch_evaluation(
    *,
    owner: User,
    project: Project | None = None,
    checkpoint: Checkpoint,
    benchmark: Benchmark,
    protocol: Protocol,
    engine: str = "transformers",
    priority: int = 0,
    devices: int = 1,
) -> Run:
    """:func:`launch_evaluations` of one checkpoint on one benchmark."""
    return launch_evaluations(
        owner=owner, project=project, checkpoints=[checkpoint], benchmarks=[benchmark],
        protocol=protocol, engine=engine, priority=priority, devices=devices,
    )  # fmt: skip


def launch_evaluations(
    *,
    owner: User,
    project: Project | None = None,
    checkpoints: Sequence[Checkpoint],
    benchmarks: Sequence[Benchmark],
    protocol: Protocol,
    engine: str = "transformers",
    priority: int = 0,
    devices: int = 1,
) -> Run:
    """Start the measurement of each checkpoint on each benchmark, as one run. Raises UserError.

    A model that an endpoint serves is asked there, whatever ``engine`` says. ``priority`` is the
    run's (turns.py), ``devices`` the engine's tensor parallelism. A checkpoint's evaluations follow
    each other, so that its model is loaded once.
    """
    project = place_for(owner, project)
    turns.check_priority(priority, owner)
    ingredients.check_seen(checkpoints, owner)
    served = {
        each.checkpoint_id: each for each in Endpoint.objects.filter(checkpoint__in=checkpoints)
    }
    engines = {each.pk: "openai" if each.pk in served else engine for each in checkpoints}
    for checkpoint in checkpoints:
        ingredients.check_answerer(checkpoint, served.get(checkpoint.pk), protocol, engine)
    for used in sorted(set(engines.values())):
        if used != "openai" or len(set(engines.values())) == 1:
            grants.check(devices, what="The model", field="devices", engine=used)
    with transaction.atomic():
        for checkpoint in checkpoints:
            if (endpoint := served.get(checkpoint.pk)) is not None:
                endpoints.lock(endpoint, "checkpoint")
        run = _evaluation_run(owner, project, checkpoints, benchmarks, protocol, priority)
        plans = []
        for checkpoint in checkpoints:
            for benchmark in benchmarks:
                evaluation = _evaluation(
                    run, checkpoint, benchmark, protocol, engine=engines[checkpoint.pk]
                )
                what = f"{checkpoint} on {benchmark.title}"
                held = 1 if checkpoint.pk in served else devices
                plans += measuring_stages(evaluation, what, held)
        create_stages(run, plans)
    return run


def import_completions(
    *,
    owner: User,
    project: Project | None = None,
    checkpoint_name: str,
    benchmark: Benchmark,
    path: Path,
    protocol: Protocol | None = None,
    model: str | None = None,
) -> Run:
    """Take in and grade completions made elsewhere (``each_completion`` says in which form).

    ``model`` picks that model's rows from a file of several models' completions.

    Without a protocol, the thinking tags are the ones that the texts themselves show, and prompt
    and sampling count as not known. Raises UserError naming the line and the field; nothing is left
    behind then.
    """
    project = place_for(owner, project)
    thinking, samples = _look_through(path, benchmark, model)
    if protocol is None:
        protocol = preset("r1").model_copy(
            update={"name": "imported", "thinking": thinking, "drawn_elsewhere": True}
        )
    protocol = protocol.model_copy(update={"samples": samples})
    with transaction.atomic():
        checkpoint = completions_only(owner=owner, project=project, name=checkpoint_name)
        run = _evaluation_run(owner, project, [checkpoint], [benchmark], protocol)
        evaluation = _evaluation(run, checkpoint, benchmark, protocol, engine="replay")
        relative = f"runs/{run.pk}/completions.jsonl{'.gz' if path.suffix == '.gz' else ''}"
        plans = [
            PlannedStage(
                "import", f"Import completions of {checkpoint}",
                {"completions_file": relative, "model": model}, evaluation=evaluation,
            ),
            grading_stage(evaluation, f"{checkpoint} on {benchmark.title}", "import"),
        ]  # fmt: skip
        create_stages(run, plans)
        target = files.store_path(relative)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        store.publish(relative)
    return run


def _look_through(path: Path, benchmark: Benchmark, model: str | None) -> tuple[Thinking, int]:
    """Check a file of completions; the tags that its texts show, and its samples a problem."""
    known = set(benchmark.problems.values_list("problem_id", flat=True))
    samples = 0

    def seen() -> Iterator[Completion]:
        nonlocal samples
        for each in each_completion(path, model=model):
            if each.problem_id not in known:
                raise UserError(
                    f"file: {benchmark.title} has no problem {each.problem_id[:60]!r}; use the "
                    "ids of the installed problems.",
                    "file",
                )
            samples = max(samples, each.sample + 1)
            if samples > MOST_SAMPLES:
                raise UserError(
                    f"file: sample {each.sample} of {each.problem_id[:60]!r} is beyond the "
                    f"{MOST_SAMPLES} that a problem can have here; leave the rest out.",
                    "file",
                )
            yield each

    try:
        thinking = detect_thinking(seen())
    except InputError as error:
        raise UserError(f"file: {error}", "file") from None
    return thinking, samples


def cancel_run(run: Run) -> None:
    """Cancel a run: its leases are lost at once, and workers end their children."""
    with transaction.atomic():
        locked = Run.objects.select_for_update(no_key=True).get(pk=run.pk)
        if locked.state in FINAL_STATES:
            raise UserError(f"The run is {locked.state} already; there is nothing to cancel.")
        Run.objects.filter(pk=run.pk).update(state=State.CANCELLED, finished_at=Now())
        leases.cancel_rest(locked)


def retry_run(run: Run) -> None:
    """Go on with a run that ended; what was accepted stays and is not done again.

    Of a finished run that is what errors kept from its scores. Raises UserError where nothing is.
    """
    with transaction.atomic():
        locked = Run.objects.select_for_update(no_key=True).get(pk=run.pk)
        if locked.state not in FINAL_STATES:
            raise UserError(f"The run is {locked.state}; only one that has ended goes on.")
        redraw.reopen(locked)
        unfinished = locked.stages.exclude(state=State.FINISHED)
        if not unfinished.exists():
            raise UserError("The run is finished and no sample of it failed; nothing is left.")
        first = unfinished.order_by("position")[0]
        unfinished.update(
            state=State.WAITING, error="", started_at=None, finished_at=None,
            done_before=F("done"), tokens_before=F("tokens"),
        )  # fmt: skip
        Shard.objects.filter(stage__in=locked.stages.exclude(state=State.FINISHED)).exclude(
            state=State.FINISHED
        ).update(
            state=State.QUEUED, attempts=0, failures=0, error="", not_before=None, lease_token=None
        )
        leases.hold_back_merges(locked)
        Stage.objects.filter(pk=first.pk).update(state=State.QUEUED)
        Run.objects.filter(pk=run.pk).update(state=State.QUEUED, error="", finished_at=None)
        leases.ring_after_commit(first)


# --- the rows of a run


def _evaluation_run(  # noqa: PLR0917 - a row's values, given by two callers
    owner: User,
    project: Project,
    checkpoints: Sequence[Checkpoint],
    benchmarks: Sequence[Benchmark],
    protocol: Protocol,
    priority: int = 0,
) -> Run:
    who = ", ".join(each.name for each in checkpoints)
    what = ", ".join(each.title for each in benchmarks)
    return Run.objects.create(
        kind=Run.Kind.EVALUATION,
        name=f"{_short(who, 120)} on {_short(what, 70)}",
        config=protocol.model_dump(mode="json"),
        priority=priority,
        owner=owner,
        project=project,
    )


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _evaluation(
    run: Run,
    checkpoint: Checkpoint | None,
    benchmark: Benchmark,
    protocol: Protocol,
    *,
    engine: str,
    role: str = "",
) -> Evaluation:
    ingredients.check_judge(benchmark)
    samples = samples_for(protocol, benchmark.name)
    resolved = protocol.model_copy(update={"samples": samples})
    return Evaluation.objects.create(
        run=run,
        checkpoint=checkpoint,
        role=role,
        benchmark=benchmark,
        protocol=resolved.model_dump(mode="json"),
        samples=samples,
        engine={"name": engine},
        measurement_hash=measurement_hash(
            resolved,
            problems_hash=benchmark.content_hash,
            prompt=resolved.prompt or registry.get(benchmark.name).prompt,
            grader=graders.get(benchmark.grader).identity,
        ),
        run_fingerprint=run_fingerprint(resolved, samples=samples, engine={"name": engine}),
    )

"""The stages and shards that a run is to have, before they are rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from webapp.config import celery
from webapp.runs import leases, stages
from webapp.runs.models import Evaluation, Run, Shard, Stage, State

SHARD_PROBLEMS = 50  # problems per shard of an evaluation
GRADE_SHARD = 2000  # completions per shard of a grade stage, as long as a problem's fit
JUDGE_SHARD = 64  # the same where each is a program to compile and run
FILTER_SHARD = 8000  # traces per shard of a filter stage


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """A stage to be; with ``problem_ids`` it gets a shard per chunk, otherwise one."""

    kind: str
    title: str
    config: dict[str, Any]
    evaluation: Evaluation | None = None
    problem_ids: Sequence[str] | None = None
    chunk: int = 1  # problems per shard
    samples: int = 1
    unit: str = ""
    merges: bool = False  # a last shard puts together what the others made
    devices: int = 1  # for a child, where the queue is one of devices

    @property
    def queue(self) -> str:
        """Whose workers may do it."""
        return stages.queue_of(self.kind, self.evaluation, self.config)

    def works(self) -> Iterator[tuple[dict[str, Any], int]]:
        """Yield each shard's work and its total in the stage's unit (0: not known yet)."""
        if self.problem_ids is None:
            yield {}, 0
            return
        for start in range(0, len(self.problem_ids), self.chunk):
            ids = list(self.problem_ids[start : start + self.chunk])
            yield {"problem_ids": ids}, len(ids) * self.samples


def create_stages(run: Run, plans: Sequence[PlannedStage]) -> None:
    """Write the run's stages and shards; the first stage is queued, and rung after commit."""
    for position, plan in enumerate(plans):
        works = list(plan.works())
        stage = Stage.objects.create(
            run=run,
            position=position,
            kind=plan.kind,
            queue=plan.queue,
            devices=plan.devices if plan.queue == celery.GPU else 0,
            title=plan.title[:120],
            evaluation=plan.evaluation,
            state=State.QUEUED if position == 0 else State.WAITING,
            config=plan.config,
            total=sum(total for _, total in works),
            unit=plan.unit,
        )
        shards = [
            Shard(stage=stage, index=index, work=work, total=total)
            for index, (work, total) in enumerate(works)
        ]
        if plan.merges and len(shards) > 1:
            shards.append(
                Shard(stage=stage, index=len(shards), work={"merge": True}, state=State.WAITING)
            )
        elif plan.merges:
            shards[0].work = {}  # a single shard does and merges all
        Shard.objects.bulk_create(shards)
        if position == 0:
            leases.ring_after_commit(stage)


def filter_stage(config: dict[str, Any], prompts: Sequence[str], samples: int) -> PlannedStage:
    """Filter so many samples of the prompts: in one shard where they are few."""
    return PlannedStage(
        "filter", "Filter traces", config, merges=True, problem_ids=prompts,
        chunk=max(FILTER_SHARD // samples, 1), samples=samples, unit="checks",
    )  # fmt: skip


def measuring_stages(evaluation: Evaluation, what: str, devices: int = 1) -> list[PlannedStage]:
    """Draw and grade: ``what`` is measured goes into the titles."""
    ids = list(
        evaluation.benchmark.problems.order_by("position").values_list("problem_id", flat=True)
    )
    engine = evaluation.engine["name"]
    config = {"engine": engine}
    if engine == "openai":
        assert evaluation.checkpoint is not None
        config["endpoint"] = evaluation.checkpoint.endpoint.pk
    evaluate = PlannedStage(
        "evaluate", f"Evaluate {what}", config,
        evaluation=evaluation, problem_ids=ids, chunk=SHARD_PROBLEMS,
        samples=evaluation.samples, unit="completions", devices=devices,
    )  # fmt: skip
    return [evaluate, grading_stage(evaluation, what, "evaluate")]


def grading_stage(evaluation: Evaluation, what: str, grades: str) -> PlannedStage:
    """Grade what the evaluation's stage of kind ``grades`` delivers."""
    ids = evaluation.benchmark.problems.order_by("position").values_list("problem_id", flat=True)
    programs = stages.runs_programs(evaluation.benchmark.grader)
    completions = JUDGE_SHARD if programs else GRADE_SHARD
    return PlannedStage(
        "grade", f"Grade {what}", {"grades": grades}, evaluation=evaluation, merges=True,
        problem_ids=list(ids), chunk=max(completions // evaluation.samples, 1),
        samples=evaluation.samples, unit="verdicts",
    )  # fmt: skip

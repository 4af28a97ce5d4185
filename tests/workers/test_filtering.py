"""A filter stage of many shards, through real children, makes what one of a single shard makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings

from distiller.recipe import EvaluationPlan, Prompts, Recipe
from distiller.toy import solve
from evaluator.benchmarks import arithmetic
from evaluator.records import Completion, FinishReason
from evaluator.store import SegmentWriter
from tests.distiller.samples import make_tiny
from webapp.benchmarks import services as benchmarks
from webapp.checkpoints.models import Checkpoint
from webapp.projects.access import first_project
from webapp.runs import files, plans, services, stages
from webapp.runs.models import Run, Segment, Stage, State
from workers.tasks.stages import do_work

PROMPTS = arithmetic.generate(20, seed=4)
SAMPLES = 2


@pytest.fixture
def recipe(transactional_db: None, user: Any, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.setattr(stages, "ring", lambda stage, times: None)
    folder = make_tiny("qwen2", Path(django_settings.MEDIA_ROOT) / "checkpoints" / "tiny")
    Checkpoint.objects.create(
        project=first_project(), name="tiny", path=f"checkpoints/{folder.name}", owner=user
    )
    benchmarks.install_prompt_set("sums", PROMPTS)
    benchmarks.install_benchmark("arithmetic", arithmetic.generate(40, seed=9), "here")
    made = Recipe(
        teacher="tiny", base="tiny", student="student", prompts=Prompts(set="sums"),
        evaluation=EvaluationPlan(),
    )  # fmt: skip
    generation = made.generation.model_copy(update={"samples": SAMPLES})
    return made.model_copy(update={"generation": generation})


def drawn(owner: Any, recipe: Recipe) -> Stage:
    """A run whose traces are there, and whose filter stage is next."""
    run = services.launch_distillation(owner=owner, recipe=recipe)
    run.stages.filter(kind__in=("preflight", "generate")).update(state=State.FINISHED)
    shard = run.stages.get(kind="generate").shards.get()
    folder = files.segments_folder(shard.stage)
    with SegmentWriter(folder, prefix="drawn", seal_rows=7) as writer:
        for number, problem in enumerate(PROMPTS):
            for sample in range(SAMPLES):
                text = solve(problem.problem) if (number + sample) % 3 else "\\boxed{0}"
                writer.append(Completion(problem.id, sample, text, FinishReason.STOP).to_json())
    for path in sorted(folder.glob("*.zst")):
        Segment.objects.create(
            shard=shard, name=path.name, lease_token="0" * 32, sha256="", row_count=7, size_bytes=1
        )
    stage: Stage = run.stages.get(kind="filter")
    Stage.objects.filter(pk=stage.pk).update(state=State.QUEUED)
    return stage


def made_by(stage: Stage) -> dict[str, bytes]:
    corpus = files.store_path(stage.result["corpus"])
    found = (path for path in corpus.parent.rglob("*") if path.is_file())
    return {str(path.relative_to(corpus.parent)): path.read_bytes() for path in found}


def test_a_split_filter_stage_makes_the_same_corpus(
    user: Any, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = drawn(user, recipe)
    monkeypatch.setattr(plans, "FILTER_SHARD", 12)
    split = drawn(user, recipe.model_copy(update={"student": "other"}))
    assert [shard.work for shard in whole.shards.all()] == [{}]
    works = [shard.work for shard in split.shards.order_by("index")]
    assert [len(work.get("problem_ids", ())) for work in works] == [6, 6, 6, 2, 0]
    assert works[-1] == {"merge": True}
    do_work("here/1", ["cpu"])
    for stage in (whole, split):
        stage.refresh_from_db()
        assert stage.state == State.FINISHED, stage.error
    assert split.result["funnel"] == whole.result["funnel"]
    assert split.result["funnel"]["traces"] == len(PROMPTS) * SAMPLES
    assert made_by(split) == made_by(whole)
    assert Run.objects.get(pk=split.run_id).stages.get(kind="train").state == State.QUEUED


def test_all_shards_look_into_the_benchmarks_of_the_first(user: Any, recipe: Recipe) -> None:
    stage = drawn(user, recipe)
    before = stages.build_spec(stage, "cpu")["benchmark_files"]
    benchmarks.install_benchmark("arithmetic", arithmetic.generate(41, seed=10), "later")
    again = stages.build_spec(Stage.objects.get(pk=stage.pk), "cpu")["benchmark_files"]
    assert again == before
    other = drawn(user, recipe.model_copy(update={"student": "other"}))
    assert stages.build_spec(other, "cpu")["benchmark_files"] != before

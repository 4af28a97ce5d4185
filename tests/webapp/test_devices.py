"""Devices that a run asks for: refused where nobody has them, and told to the children."""

from __future__ import annotations

from typing import Any

import pytest
from django.db.models.functions import Now

from distiller.recipe import EvaluationPlan, Prompts, Recipe
from evaluator.benchmarks import arithmetic
from evaluator.protocol import Protocol
from tests.webapp.samples import make_checkpoint
from webapp.benchmarks import services as benchmarks
from webapp.core.errors import UserError
from webapp.runs import devices, hosts, services, stages
from webapp.runs.devices import Devices
from webapp.runs.models import Device, Run

pytestmark = pytest.mark.django_db


def host(name: str, count: int) -> None:
    for index in range(count):
        Device.objects.create(host=name, name=f"{name}-{index}", sampled_at=Now())


@pytest.fixture
def recipe(user: Any) -> Recipe:
    for name in ("base", "teacher"):
        make_checkpoint(user, name)
    benchmarks.install_benchmark("arithmetic", arithmetic.generate(5, seed=1), "here")
    benchmarks.install_prompt_set("sums", arithmetic.generate(20, seed=2))
    plan = EvaluationPlan(benchmarks=("arithmetic",), protocol=Protocol(samples=1))
    made = Recipe(
        teacher="teacher", base="base", student="student",
        prompts=Prompts(set="sums"), evaluation=plan,
    )  # fmt: skip
    generation = made.generation.model_copy(update={"engine": "vllm"})
    return made.model_copy(update={"generation": generation})


def test_every_stage_gets_what_was_asked_for_its_kind(user: Any, recipe: Recipe) -> None:
    host("large", 8)
    run = services.launch_distillation(
        owner=user, recipe=recipe, devices=Devices(generate=4, train=8, evaluate=2)
    )
    found = dict(run.stages.values_list("kind", "devices"))
    assert found == {
        "preflight": 0, "generate": 4, "filter": 0, "train": 8, "evaluate": 2, "grade": 0,
    }  # fmt: skip
    train, generate = run.stages.get(kind="train"), run.stages.get(kind="generate")
    evaluate = run.stages.get(kind="evaluate", evaluation__role="base")
    run.stages.filter(kind="filter").update(result={"corpus": "runs/1/corpus"})
    assert stages.build_spec(train, "cuda")["processes"] == 8
    assert stages.build_spec(train, "cpu")["processes"] == 8  # over gloo
    assert stages.build_spec(generate, "cuda")["engine"]["tensor_parallel"] == 4
    assert stages.build_spec(evaluate, "cuda")["engine"]["tensor_parallel"] == 2
    assert "tensor_parallel" not in stages.build_spec(evaluate, "cpu")["engine"]


@pytest.mark.parametrize(
    ("asked", "field", "part"),
    [
        (Devices(train=3), "train_devices", "the largest host has 2; ask for at most 2"),
        (Devices(generate=3), "generate_devices", "the largest host has 2"),
        (Devices(evaluate=65), "evaluate_devices", "from 1 to 64"),
        (Devices(train=0), "train_devices", "from 1 to 64"),
    ],
)
def test_what_no_known_host_can_grant_is_refused_at_launch(
    user: Any, recipe: Recipe, asked: Devices, field: str, part: str
) -> None:
    host("small", 2)
    host("other", 1)
    with pytest.raises(UserError, match=part) as refusal:
        services.launch_distillation(owner=user, recipe=recipe, devices=asked)
    assert refusal.value.field == field
    assert not Run.objects.exists()


def test_before_any_device_is_known_everything_may_wait() -> None:
    assert devices.largest_host() is None
    devices.check(8, what="Training", field="train_devices")


def test_a_worker_whose_cpu_stands_in_takes_any_number() -> None:
    host("small", 2)
    hosts.greet("laptop/1", "laptop", ["cpu"])
    assert devices.largest_host() == 2
    hosts.greet("laptop/2", "laptop", ["gpu", "cpu"])
    assert devices.largest_host() is None


@pytest.mark.parametrize(("engine", "part"), [("transformers", "one device"), ("openai", "none")])
def test_an_engine_that_cannot_use_them_says_so(engine: str, part: str) -> None:
    with pytest.raises(UserError, match=part):
        devices.check(2, what="The model", field="devices", engine=engine)
    devices.check(1, what="The model", field="devices", engine=engine)

"""The launch pages without a browser: what fills the form, and what it says before a launch."""

from __future__ import annotations

import json
import re
import shlex
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer.main
from django.apps import apps
from django.test import Client
from django.utils import timezone

from distiller.cli import app as distiller_app
from distiller.recipe import Recipe
from evaluator.cli import app as evaluator_app
from evaluator.protocol import PRESETS, Protocol
from tests.webapp.launch_scene import RECIPE, install, pasted, shown
from tests.webapp.samples import (
    PREFLIGHT,
    arithmetic,
    make_benchmark,
    make_checkpoint,
    make_evaluation,
    make_run,
    make_stage,
)
from webapp.core.errors import UserError
from webapp.endpoints import services as endpoints
from webapp.runs import files, services
from webapp.runs.launching import commands, estimates
from webapp.runs.launching.evaluate import metrics_of
from webapp.runs.models import Run, State, TrainingPoint

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def here(user: Any, settings: Any, tmp_path: Path) -> Any:
    """The base of what can be launched."""
    return install(user, settings, tmp_path)


# --- presets, pastes, clones


def test_a_preset_keeps_the_names_and_says_what_it_sets(page: Client) -> None:
    first = page.get("/runs/distil/")
    typed = shown(first) | {"student": "mine", "action": "preset:quick", "epochs": "9"}
    response = page.post("/runs/distil/", typed)
    assert response.status_code == 200
    form = response.context["form"]
    assert form["student"].value() == "mine"
    assert form["epochs"].value() == 1.0
    assert form["method"].value() == "lora"
    assert {"epochs", "samples", "stop_after"} <= form.set_by_preset
    sets = {card["name"]: dict(card["sets"]) for card in response.context["presets"]}
    assert sets["quick"]["Epochs"] == 1.0
    assert sets["demo"]["Gradient checkpointing"] == "no"
    assert "Trace temperature" in sets["r1-distill"]
    assert page.get("/runs/distil/?preset=nonsense").status_code == 404
    assert not Run.objects.exists()


def test_what_a_paste_fills_in_is_launched_as_pasted(page: Client) -> None:
    response = pasted(
        page, RECIPE + "training: {epochs: 3, weight_decay: 0.1}\ndecontaminate: no\n"
    )
    assert response.status_code == 200
    launched = page.post("/runs/distil/", shown(response))
    run = Run.objects.get()
    assert launched["location"] == run.get_absolute_url()
    recipe = Recipe.model_validate(run.config)
    assert (recipe.training.epochs, recipe.training.weight_decay) == (3, 0.1)
    assert recipe.name == recipe.student == "s"
    assert not recipe.decontaminate
    assert recipe.training.max_length_tokens == 2000  # left out: the base's context


def test_a_mistake_in_a_paste_leaves_text_and_form_as_they_were(page: Client) -> None:
    text = RECIPE + "training: {epochs: -1}\n"
    typed = {"student": "typed", "action": "paste", "yaml": text}
    for headers, status in ((None, 400), ({"HX-Request": "true"}, 200)):
        response = page.post("/runs/distil/", typed, headers=headers)
        assert response.status_code == status
        body = response.content.decode()
        assert "line 5, training.epochs" in body
        assert text.splitlines()[0] in body
        assert response.context["form"]["student"].value() == "typed"
    assert not Run.objects.exists()


def test_names_that_are_gone_are_flagged_and_a_taken_one_is_replaced(
    page: Client, user: Any
) -> None:
    response = page.post("/runs/distil/", shown(pasted(page, RECIPE)))
    run = Run.objects.get()
    assert response.status_code == 302
    recipe = Recipe.model_validate(run.config)
    plan = recipe.evaluation.model_copy(update={"benchmarks": ("aime_2024", "arithmetic")})
    changed = recipe.model_copy(update={"teacher": "gone", "evaluation": plan})
    Run.objects.filter(pk=run.pk).update(config=changed.model_dump(mode="json"))
    make_checkpoint(user, "s")
    response = page.get(f"/runs/distil/?clone={run.pk}")
    form = response.context["form"]
    assert set(form.notes) == {"teacher", "benchmarks", "student"}
    body = response.content.decode()
    assert "teacher &#x27;gone&#x27; is not here" in body
    assert "aime_2024" in form.notes["benchmarks"]
    assert form["student"].value() == "s-2"
    assert form["benchmarks"].value() == ["arithmetic"]


def test_only_the_run_of_the_kind_is_cloned(page: Client, user: Any) -> None:
    evaluation = make_run(user, "e", Run.Kind.EVALUATION)
    assert page.get(f"/runs/distil/?clone={evaluation.pk}").status_code == 404
    assert page.get("/runs/distil/?clone=99999999999999999999999").status_code == 404
    old = make_run(user, "old", Run.Kind.DISTILLATION, config={"nonsense": 1})
    assert "cannot be cloned" in page.get(f"/runs/distil/?clone={old.pk}").content.decode()


# --- the form as text


def test_a_field_cannot_be_given_twice(page: Client) -> None:
    values = shown(pasted(page, RECIPE)) | {"more": "training: {epochs: 9, weight_decay: 0.5}\n"}
    response = page.post("/runs/distil/", values)
    assert response.context["form"].errors == {
        "more": ["Other fields: training.epochs has a field of its own; set it there."]
    }


# --- YAML and commands


def test_the_recipes_commands_can_be_typed(page: Client, user: Any, tmp_path: Path) -> None:
    values = shown(pasted(page, RECIPE + "evaluation: {benchmarks: [arithmetic]}\n"))
    response = page.post("/runs/distil/recipe/", values, headers={"HX-Request": "true"})
    told = response.context["commands"]
    documents = re.findall(r"cat > (\S+) <<'END'\n(.*?)\nEND\n", told, re.DOTALL)
    assert [name for name, _ in documents] == ["recipe.json", "protocol.json"]
    recipe = Recipe.model_validate(json.loads(documents[0][1]))
    assert recipe.teacher.startswith("var/files/checkpoints/")
    Protocol.model_validate(json.loads(documents[1][1]))
    apps = {"distiller": distiller_app, "evaluator": evaluator_app}
    typed = [shlex.split(line) for line in told.splitlines() if line.startswith("python -m ")]
    assert [parts[3] for parts in typed] == [
        "preflight", "generate", "filter", "train", "export", "run", "run", "run",
    ]  # fmt: skip
    for _, _, module, command, *arguments in typed:
        group: Any = typer.main.get_command(apps[module])
        group.commands[command].make_context(command, arguments)  # refuses unknown options


def test_an_endpoints_teacher_is_asked_by_the_commands(page: Client, user: Any) -> None:
    endpoints.register(owner=user, name="far", base_url="http://127.0.0.1:9/v1", model="m")
    values = shown(pasted(page, RECIPE.replace("teacher: teacher", "teacher: far")))
    response = page.post("/runs/distil/recipe/", values)
    assert '"base_url": "http://127.0.0.1:9/v1"' in response.context["commands"]
    assert "base_url: null" in response.context["yaml"]


# --- checks


def test_a_check_is_one_stage_and_its_answer_ends_the_polling(page: Client) -> None:
    values = shown(pasted(page, RECIPE))
    response = page.post("/runs/distil/check/", values, headers={"HX-Request": "true"})
    run = Run.objects.get()
    assert (run.name, run.kind) == ("Check of s", Run.Kind.CHECK)
    assert [(s.kind, s.devices) for s in run.stages.all()] == [("preflight", 0)]
    assert f'hx-get="/runs/{run.pk}/checked/"' in response.content.decode()
    folder = files.stage_folder(run.stages.get())
    folder.mkdir(parents=True)
    (folder / "preflight.json").write_text(json.dumps(PREFLIGHT))
    run.stages.update(state=State.FINISHED)
    Run.objects.update(state=State.FINISHED)
    body = page.get(f"/runs/{run.pk}/checked/").content.decode()
    assert "hx-get" not in body
    assert "it is shared; name another" in body
    text = page.get(run.get_absolute_url()).content.decode()
    assert f"/runs/distil/?clone={run.pk}" in text
    assert "lineage/" not in text  # it made nothing
    assert page.get("/runs/?kind=check").context["runs"][0].run == run
    assert not page.get("/runs/?kind=distillation").context["runs"]
    assert page.get(f"/runs/distil/?clone={run.pk}").context["form"]["base"].value()


def test_checks_that_were_listed_as_distillations_become_checks(user: Any) -> None:
    migration = import_module("webapp.runs.migrations.0010_checks")
    check, distillation, begun = (
        make_run(user, name, Run.Kind.DISTILLATION) for name in ("check", "whole", "no stage yet")
    )
    make_stage(check, 0, "preflight", "Check the recipe")
    make_stage(distillation, 0, "preflight", "Check the recipe")
    make_stage(distillation, 1, "generate", "Generate traces")
    before = ["distillation"] * 3
    for move, kinds in ((migration.tell_apart, ["check", *before[1:]]),
                        (migration.put_together, before)):  # fmt: skip
        move(apps, None)
        runs = Run.objects.filter(pk__in=(check.pk, distillation.pk, begun.pk)).order_by("pk")
        assert list(runs.values_list("kind", flat=True)) == kinds


def test_without_javascript_a_check_leads_to_its_page(page: Client) -> None:
    response = page.post("/runs/distil/check/", shown(pasted(page, RECIPE)))
    assert response["location"] == Run.objects.get().get_absolute_url()


def test_a_check_of_an_unfinished_form_says_what_is_missing(page: Client) -> None:
    response = page.post("/runs/distil/check/", {}, headers={"HX-Request": "true"})
    assert response.status_code == 200
    assert "Teacher: choose one." in response.content.decode()
    assert page.post("/runs/distil/check/", {}).status_code == 400
    assert not Run.objects.exists()


# --- estimates


def estimate(page: Client, text: str = RECIPE, **changes: Any) -> dict[str, estimates.Figure]:
    values = shown(pasted(page, text)) | changes
    response = page.post("/runs/distil/estimate/", values, headers={"HX-Request": "true"})
    assert response.status_code == 200
    return {figure.name: figure for figure in response.context["figures"]}


def test_without_earlier_runs_times_are_unknown_and_lengths_are_bounds(page: Client) -> None:
    found = estimate(page)
    assert found["Traces"].value == "at most 24k tokens"  # 6 prompts × 4 samples × 1,000
    assert found["Time of the traces"].value == "unknown"
    assert found["Time of the training"].value == "unknown"
    assert found["Memory of the training"].is_known
    assert "Price" not in " ".join(found)


def past_run(user: Any, base: Any, *, tokens: int, seconds: float) -> None:
    """A distillation of the teacher whose stages are over."""
    teacher = base.__class__.objects.get(name="teacher")
    config = Recipe.model_validate(
        {"teacher": "teacher", "base": "base", "student": "x", "prompts": {"set": "sums"}}
    ).model_dump(mode="json")
    run = make_run(user, "earlier", Run.Kind.DISTILLATION, config=config)
    now = timezone.now()
    common = {
        "config": {"teacher": teacher.pk, "base": base.pk}, "tokens": tokens,
        "started_at": now - timedelta(seconds=seconds), "finished_at": now,
    }  # fmt: skip
    drawn = make_stage(run, 0, "generate", "g", done=10, devices=1, **common)
    tally = {"traces": 10, "completion_tokens": tokens, "prompt_tokens": 200, "prompts": 5}
    TrainingPoint.objects.create(stage=drawn, step=0, values=tally)
    funnel = {"traces": 10, "kept": 5, "dropped": 5, "steps": []}
    make_stage(run, 1, "filter", "f", result={"funnel": funnel}, config=common["config"])
    make_stage(run, 2, "train", "t", devices=1, **common)


def test_figures_rest_on_earlier_runs_of_the_same_models(
    page: Client, here: Any, user: Any
) -> None:
    past_run(user, here, tokens=1000, seconds=50)
    found = estimate(page)
    # 24 traces of 100 tokens; 20 tokens a second; half of them kept; 120 tokens with the prompt.
    assert found["Traces"].value == "about 2.4k tokens"
    assert "10 traces in 1 earlier run" in found["Traces"].basis
    assert found["Time of the traces"].value == "about 2 min 00 s"
    assert found["Time of the training"].value == "about 2 min 24 s"  # 24 × ½ × 120 × 2 / 20
    assert "50% of the traces kept" in found["Time of the training"].basis
    other = estimate(page, generate_devices="2")
    assert other["Time of the traces"].value == "unknown", "that was with another number of devices"
    assert estimate(page, engine="vllm")["Time of the traces"].value == "unknown"


def test_an_estimate_needs_as_many_queries_after_many_runs(
    page: Client, here: Any, user: Any, django_assert_max_num_queries: Any
) -> None:
    values = shown(pasted(page, RECIPE + "evaluation: {benchmarks: [arithmetic]}\n"))
    for _ in range(3):
        with django_assert_max_num_queries(16):
            page.post("/runs/distil/estimate/", values, headers={"HX-Request": "true"})
        for _ in range(4):
            past_run(user, here, tokens=1000, seconds=50)


def test_a_price_is_the_recipes_or_the_endpoints(page: Client, user: Any) -> None:
    endpoints.register(
        owner=user, name="far", base_url="http://127.0.0.1:9/v1", model="m", input_price=1,
        output_price=2,
    )  # fmt: skip
    text = RECIPE.replace("teacher: teacher", "teacher: far") + (
        "generation: {samples: 10, sampling: {max_tokens: 1000}}\n"
    )
    found = estimate(page, text)
    assert found["Price of the traces"].value == "at most 0.12 USD"  # 60,000 tokens at 2 a million
    assert "prompts' tokens are not counted" in found["Price of the traces"].basis
    priced = text.replace("samples: 10,", "samples: 10, price: {input_per_million: 0, "
                          "output_per_million: 100, currency: EUR},")  # fmt: skip
    assert estimate(page, priced)["Price of the traces"].value == "at most 6.00 EUR"


@pytest.mark.parametrize("config", ["{}", "[", '{"hidden_size": "x"}', '{"hidden_size": 0}', "3"])
def test_a_base_of_unknown_shape_has_no_memory_estimate(
    page: Client, here: Any, config: str
) -> None:
    (files.store_path(here.path) / "config.json").write_text(config)
    assert estimate(page)["Memory of the training"].value == "unknown"


def test_an_empty_form_is_no_mistake_to_the_estimate(page: Client) -> None:
    response = page.post("/runs/distil/estimate/", {}, headers={"HX-Request": "true"})
    assert response.status_code == 200
    assert "Choose teacher" in response.content.decode()
    assert page.post("/runs/distil/estimate/", {}).status_code == 200  # without htmx


# --- evaluations


def test_a_matrix_is_one_run_of_all_its_evaluations(page: Client, user: Any) -> None:
    make_benchmark(arithmetic(3), "math_500", "MATH-500")
    response = page.get("/runs/evaluate/")
    choices = response.context["form"].fields
    chosen = {
        "checkpoints": [c.pk for c in choices["checkpoints"].queryset],
        "benchmarks": [b.pk for b in choices["benchmarks"].queryset],
        "protocol": "quick", "engine": "transformers", "samples": "64",
    }  # fmt: skip
    plan = page.post("/runs/evaluate/plan/", chosen, headers={"HX-Request": "true"}).context["plan"]
    assert (plan.evaluations, plan.completions) == (4, 2 * (6 + 3) * 64)
    assert plan.columns[0].metrics == ["pass@1[avg-of-64]", "pass@64", "cons@64"]
    assert page.post("/runs/evaluate/", chosen).status_code == 302
    run = Run.objects.get()
    pairs = [(e.checkpoint.name, e.benchmark.name) for e in run.evaluations.order_by("pk")]  # type: ignore[union-attr]
    assert pairs == [(c, b) for c in ("base", "teacher") for b in ("arithmetic", "math_500")]
    assert [s.kind for s in run.stages.all()] == ["evaluate", "grade"] * 4
    total = sum(s.total for s in run.stages.filter(kind="evaluate"))
    assert total == plan.completions
    again = page.get(f"/runs/evaluate/?clone={run.pk}").context["form"]
    assert sorted(again["checkpoints"].value()) == sorted(chosen["checkpoints"])
    assert (again["samples"].value(), again["protocol"].value()) == (64, "quick")


@pytest.mark.parametrize("samples", [1, 2, 8])
def test_the_names_shown_before_are_the_figures_that_come(
    user: Any, here: Any, samples: int
) -> None:
    problems = arithmetic(4)
    benchmark = make_benchmark(problems, "custom", "Custom")
    found = make_evaluation(user, here, benchmark, problems, samples=samples)
    for name in metrics_of(samples, benchmark):
        kind, _, k = name.partition("@")
        value = found.metrics["pass@1"]["value"] if "avg" in name else found.metrics[f"{kind}@k"][k]
        assert value is not None, name


def test_several_models_of_which_one_cannot_answer_launch_nothing(user: Any, here: Any) -> None:
    benchmark = make_benchmark(arithmetic(2), "custom", "Custom")
    absent = make_checkpoint(user, "absent", path="")
    with pytest.raises(UserError, match="absent has no files"):
        services.launch_evaluations(
            owner=user, checkpoints=[here, absent], benchmarks=[benchmark],
            protocol=PRESETS["quick"],
        )  # fmt: skip
    assert not Run.objects.exists()


def test_a_matrix_without_bounds_is_refused(page: Client, monkeypatch: Any) -> None:
    monkeypatch.setattr("webapp.runs.launching.evaluate.MOST_EVALUATIONS", 1)
    fields = page.get("/runs/evaluate/").context["form"].fields
    response = page.post("/runs/evaluate/", {
        "checkpoints": [c.pk for c in fields["checkpoints"].queryset],
        "benchmarks": [b.pk for b in fields["benchmarks"].queryset],
        "protocol": "quick", "engine": "transformers",
    })  # fmt: skip
    assert response.status_code == 400
    assert "2 evaluations are more than 1" in response.context["form"].errors["checkpoints"][0]


def test_commands_name_files_of_the_store(here: Any, user: Any) -> None:
    recipe = Recipe.model_validate(
        {"teacher": "nobody", "base": "base", "student": "s", "prompts": {"set": "sums"}}
    )
    assert '"teacher": "FILE"' in commands.of_distillation(recipe, user)

"""Launching by the API is launching by the page: the same estimates, recipes, chats, refusals."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from distiller.recipe import Recipe
from tests.webapp.api.rows import make_world, member
from tests.webapp.launch_scene import CHATS, RECIPE, install, pasted, shown
from webapp.core.models import AuditEntry
from webapp.projects.models import Project, Role
from webapp.runs.launching import presets
from webapp.runs.models import KeptChats, Run, Stage, State

pytestmark = pytest.mark.django_db

RUNS = "/api/v1/runs"


@pytest.fixture
def caller(user: Any, settings: Any, tmp_path: Path, by_token: Callable[..., Client]) -> Client:
    install(user, settings, tmp_path)
    return by_token(user)


def post(client: Client, path: str, body: Any) -> Any:
    return client.post(path, json.dumps(body), content_type="application/json")


def upload(client: Client, body: bytes, name: str = "chats.jsonl") -> Any:
    return client.post("/api/v1/chats", {"file": SimpleUploadedFile(name, body)})


def test_the_estimate_is_the_pages(caller: Client, user: Any) -> None:
    page = Client()
    page.force_login(user)
    values = shown(pasted(page, RECIPE))
    shows = page.post("/runs/distil/estimate/", values, headers={"HX-Request": "true"})
    text = yaml.safe_dump(Recipe.model_validate(yaml.safe_load(RECIPE)).model_dump(mode="json"))
    told = post(caller, f"{RUNS}/distil/estimate", {"yaml": text}).json()
    # What the page leaves to the checkpoints' contexts, a recipe says itself.
    assert [each["name"] for each in told] == [each.name for each in shows.context["figures"]]
    assert "6 prompts" in told[0]["basis"]
    assert all(each["value"] and each["basis"] for each in told)
    assert not Run.objects.exists()


def test_the_plan_of_evaluations_is_that_of_the_launch(caller: Client) -> None:
    body = {"checkpoints": ["teacher", "base"], "benchmarks": ["arithmetic"], "samples": 3}
    plan = post(caller, f"{RUNS}/evaluate/estimate", body).json()
    assert not Run.objects.exists()
    run = Run.objects.get(pk=post(caller, f"{RUNS}/evaluate", body).json()["id"])
    assert plan["evaluations"] == run.evaluations.count() == 2
    assert plan["completions"] == 2 * 3 * 6
    assert plan["columns"][0]["metrics"] == ["pass@1[avg-of-3]", "pass@3", "cons@3"]
    assert [each["name"] for each in plan["times"]] == ["base", "teacher"]


def test_a_recipe_comes_back_whole_and_as_commands(caller: Client) -> None:
    told = post(caller, f"{RUNS}/distil/recipe", {"yaml": RECIPE}).json()
    again = Recipe.model_validate(yaml.safe_load(told["yaml"]))
    assert again == Recipe.model_validate(yaml.safe_load(RECIPE))
    assert "python -m distiller train recipe.json" in told["commands"]


def test_presets_are_the_beginnings_of_recipes(caller: Client) -> None:
    told = caller.get(f"{RUNS}/presets").json()
    assert [each["name"] for each in told] == list(presets.ORDER)
    for each in told:
        body = {"recipe": each["recipe"] | yaml.safe_load(RECIPE)}
        assert post(caller, f"{RUNS}/distil/recipe", body).status_code == 200


def test_chats_come_in_and_a_recipe_names_them(caller: Client, user: Any) -> None:
    first, packed = upload(caller, CHATS), upload(caller, gzip.compress(CHATS), "c.jsonl.gz")
    assert (first.status_code, packed.status_code) == (201, 201)
    assert first.json() == packed.json()  # the same chats are kept once
    assert KeptChats.objects.get().owner == user
    assert AuditEntry.objects.filter(action="chats.keep", user_key=user.pk).count() == 2
    recipe = yaml.safe_load(RECIPE) | {
        "corpus": {"general": [{"name": "general", "weight": 1, **first.json()}]}
    }
    launched = post(caller, f"{RUNS}/distil", {"recipe": recipe})
    assert launched.status_code == 201, launched.content
    [source] = launched.json()["config"]["corpus"]["general"]
    assert source["file"] == first.json()["file"]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [(b"", "holds none"), (b"not json\n", "line 1"), (gzip.compress(CHATS)[:-9], "")],
)
def test_chats_that_are_none_are_refused(caller: Client, body: bytes, sentence: str) -> None:
    answer = upload(caller, body, "c.jsonl.gz" if body[:2] == b"\x1f\x8b" else "c.jsonl")
    assert answer.status_code == 422
    assert answer.json()["field"] == "file"
    assert sentence in answer.json()["sentence"]
    assert not KeptChats.objects.exists()


def test_others_chats_are_as_unknown_as_none(
    caller: Client, by_token: Callable[..., Client]
) -> None:
    kept = upload(caller, CHATS).json()["file"]
    stranger = member("sven", Project.objects.create(name="elsewhere"), Role.OPERATOR)
    told = set()
    for file in (kept, kept.replace(kept[6:10], "0000"), "/etc/passwd"):
        recipe = yaml.safe_load(RECIPE) | {
            "corpus": {"general": [{"name": "general", "weight": 1, "file": file}]}
        }
        for way in ("distil", "check", "distil/estimate", "distil/recipe"):
            answer = post(by_token(stranger), f"{RUNS}/{way}", {"recipe": recipe})
            assert answer.status_code == 422
            told.add(answer.json()["sentence"].replace(repr(file), "FILE"))
    assert told == {"corpus: general: FILE was not uploaded here; upload it."}


def test_what_is_written_last_is_told_while_a_model_writes(
    user: Any, by_token: Callable[..., Client], settings: Any, tmp_path: Path
) -> None:
    world = make_world(user, Project.objects.order_by("pk")[0], "own")
    client, path = by_token(user), f"{RUNS}/{world.keys['runs']}/latest"
    assert client.get(path).json() == []  # the run has ended
    stages = Stage.objects.filter(run=world.keys["runs"], kind="evaluate")
    stages.update(state=State.RUNNING)
    told = client.get(path).json()
    assert len(told) == 3
    assert all(each["beginning"] for each in told)
    shutil.rmtree(settings.MEDIA_ROOT / "runs")
    assert client.get(path).json()["field"] == "run"


@pytest.mark.parametrize("way", ["distil", "check", "distil/estimate", "distil/recipe"])
@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ("filters: [{name: bogus}]", "filters"), ("teacher: nobody", "teacher"),
        ("prompts: {set: none}", "prompts"), ("student: a b", "student"),
        ("bogus: 1", "recipe.bogus"), ("generation: {samples: 0}", "recipe.generation.samples"),
    ],
)  # fmt: skip
def test_every_way_refuses_the_same(caller: Client, way: str, wrong: str, field: str) -> None:
    recipe = yaml.safe_load(RECIPE) | yaml.safe_load(wrong)
    answer = post(caller, f"{RUNS}/{way}", {"recipe": recipe})
    assert answer.status_code == 422, answer.content
    assert answer.json()["field"] == field
    assert answer.json()["sentence"].endswith(".")
    assert not Run.objects.exists()

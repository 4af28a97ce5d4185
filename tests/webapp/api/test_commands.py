"""Commands before and around a launch: estimates, recipes, chats, lineage, what administrators
add."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.evaluator import programs
from tests.webapp.api.conftest import SERVER
from tests.webapp.api.rows import World
from tests.webapp.launch_scene import CHATS
from webapp.api import tokens
from webapp.benchmarks.models import Benchmark, Contest, PromptSet, RatingPopulation
from webapp.checkpoints.models import Checkpoint, Upload
from webapp.client import cli
from webapp.client.settings import Settings, save
from webapp.projects.models import Membership, Project, Role
from webapp.runs.models import Run

pytestmark = pytest.mark.django_db

PROBLEM = {"id": "a", "problem": "1 + 1?", "answer": "2"}


def told(capsys: Any, *command: str) -> str:
    """What a command prints that does its work."""
    capsys.readouterr()
    assert cli.main(list(command)) == 0, capsys.readouterr().err
    return str(capsys.readouterr().out)


@pytest.fixture
def recipe(world: World, tmp_path: Path) -> Path:
    target = tmp_path / "recipe.yaml"
    target.write_text(
        "name: r\nteacher: own-model\nbase: own-other\nstudent: s\nprompts: {set: own-prompts}\n"
    )
    return target


def test_an_estimate_is_shown_and_nothing_launched(
    signed_in: None, recipe: Path, capsys: Any
) -> None:
    before = Run.objects.count()
    shown = told(capsys, "estimate", "distil", str(recipe))
    assert "Traces: at most" in shown
    assert "6 prompts" in shown
    chosen = ("--checkpoint", "own-model", "--benchmark", "arithmetic", "--samples", "3")
    shown = told(capsys, "estimate", "evaluate", *chosen)
    assert "1 evaluations, 18 completions" in shown
    assert "pass@1[avg-of-3]" in shown
    assert Run.objects.count() == before
    assert cli.main(["estimate", "evaluate", "--checkpoint", "x", "--benchmark", "arithmetic"]) == 2
    assert "none is called 'x'" in capsys.readouterr().err


def test_a_recipe_is_written_out_and_can_be_launched_again(
    signed_in: None, recipe: Path, capsys: Any
) -> None:
    whole = told(capsys, "recipe", str(recipe))
    assert yaml.safe_load(whole)["generation"]["samples"] > 0
    recipe.write_text(whole)
    assert told(capsys, "recipe", str(recipe)) == whole
    assert "python -m distiller" in told(capsys, "recipe", str(recipe), "--commands")


def test_chats_are_sent_and_named(signed_in: None, recipe: Path, capsys: Any) -> None:
    file = recipe.with_name("chats.jsonl")
    file.write_bytes(CHATS)
    path = told(capsys, "chats", str(file)).strip()
    recipe.write_text(
        recipe.read_text() + f"corpus: {{general: [{{name: general, weight: 1, file: {path}}}]}}\n"
    )
    assert path in told(capsys, "recipe", str(recipe))
    assert cli.main(["chats", str(file.with_name("none"))]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_completions_are_imported(
    signed_in: None, world: World, tmp_path: Path, capsys: Any
) -> None:
    file = tmp_path / "c.jsonl"
    file.write_text(json.dumps({"problem_id": "sum-000", "sample": 0, "completion": "1"}))
    whose = ("--checkpoint", "elsewhere", "--benchmark", "arithmetic")
    shown = told(capsys, "launch", "import", str(file), *whose)
    run = Run.objects.order_by("-pk")[0]
    assert f"Run {run.pk}: elsewhere on" in shown
    assert run.stages.filter(kind="import").exists()
    file.write_text("nonsense")
    assert cli.main(["launch", "import", str(file), *whose]) == 2
    assert "c.jsonl" in capsys.readouterr().err


def test_the_server_fetches_from_the_hub(
    signed_in: None, world: World, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert "retort checkpoints" in told(capsys, "fetch", "them/model", "--no-wait")
    under_way = Upload.objects.get(name="them/model", owner=world.owner)
    assert under_way.source == Upload.Source.HUB

    def refuse(seconds: float) -> None:
        Upload.objects.filter(name="mine").update(state=Upload.State.REFUSED, reason="not there")

    monkeypatch.setattr("webapp.client.looking.time.sleep", refuse)
    assert cli.main(["fetch", "them/other", "--name", "mine"]) == 2
    assert "It was refused: not there" in capsys.readouterr().err


def test_lineage_and_checkpoints_go_by_name(signed_in: None, world: World, capsys: Any) -> None:
    assert "own-model" in told(capsys, "checkpoints", "--name", "own-m")
    Checkpoint.objects.filter(name="own-other").update(
        parent=world.keys["checkpoints"], archived_at="2026-01-01T00:00:00Z"
    )
    graph = json.loads(told(capsys, "lineage", "--checkpoint", "own-other", "--json"))
    assert {"checkpoint own-model"} <= {f"{n['role']} {n['name']}" for n in graph["nodes"]}
    shown = told(capsys, "lineage", "--checkpoint", "own-other")
    [line] = [each for each in shown.splitlines() if each.startswith("*")]
    assert line.endswith("checkpoint own-model")
    assert "own-model" in told(capsys, "lineage", str(world.keys["runs"]))
    for wrong in ([], ["1", "--checkpoint", "x"], ["--checkpoint", "nobody"]):
        assert cli.main(["lineage", *wrong]) == 2


def test_a_checkpoint_is_moved(signed_in: None, world: World, capsys: Any) -> None:
    away = Project.objects.create(name="away")
    Membership.objects.filter(user=world.owner).update(role=Role.ADMIN)
    assert cli.main(["move", "own-model", "--project", str(away.pk)]) == 2
    assert "project:" in capsys.readouterr().err
    Membership.objects.create(user=world.owner, project=away, role=Role.ADMIN)
    assert "in away now" in told(capsys, "move", "own-model", "--project", str(away.pk))
    assert Checkpoint.objects.get(name="own-model").project == away


def test_administrators_add_and_others_do_not(
    signed_in: None, admin: Any, tmp_path: Path, capsys: Any
) -> None:
    problems, bundle = tmp_path / "p.jsonl", tmp_path / "b.json"
    problems.write_text(json.dumps(PROBLEM))
    bundle.write_text(json.dumps(programs.bundle("9001")))
    people = tmp_path / "people.json"
    people.write_text("[1500, 1600]")
    adding = [
        ("benchmark", "add", "custom", str(problems)), ("prompts", "add", "mine", str(problems)),
        ("contest", "add", str(bundle)), ("contest", "add", str(people), "--population"),
    ]  # fmt: skip
    for command in adding:
        assert cli.main(list(command)) == 2
        assert "this needs admin" in capsys.readouterr().err
    save(Settings(SERVER, tokens.make(admin, name="t", scope="admin")[1]))
    shown = [told(capsys, *command) for command in adding]
    assert "1 problems, version" in shown[0]
    assert shown[1].startswith("mine: 1 prompts")
    assert shown[2] == "Round 9001: 150 rated participants.\n"
    assert shown[3] == "Percentiles refer to people: 2 ratings.\n"
    assert Benchmark.objects.filter(name="custom").count() == 1
    assert PromptSet.objects.filter(name="mine").count() == 1
    assert (Contest.objects.count(), RatingPopulation.objects.count()) == (1, 1)
    assert "custom" in told(capsys, "benchmark", "list")
    assert "mine" in told(capsys, "prompts", "list")
    assert "9001" in told(capsys, "contest", "list")


@pytest.mark.parametrize(
    "command", ["benchmark", "prompts", "contest", "estimate", "launch", "lineage", "move"]
)
def test_help_says_what_a_command_is_for(command: str, capsys: Any) -> None:
    text = told(capsys, command, "--help")
    assert len(text) > 200
    assert "retort" in text

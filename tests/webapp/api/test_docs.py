"""docs/api.md: what it shows is run; the page of the API names every operation."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from tests.webapp.api.rows import make_world
from webapp.api import tokens
from webapp.api.docs_views import _schema
from webapp.api.errors import MEANINGS
from webapp.projects.models import Project

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")


def blocks(language: str) -> str:
    return "\n".join(re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL))


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(shutil.which("curl") is None, reason="the examples use curl")
def test_the_examples_work(user: Any, live_server: Any, tmp_path: Path) -> None:
    world = make_world(user, Project.objects.order_by("pk")[0], "own")
    environment = {
        "PATH": os.environ["PATH"], "XDG_CONFIG_HOME": str(tmp_path), "PYTHONPATH": str(ROOT),
        "RETORT_SERVER": live_server.url, "RETORT_TOKEN": tokens.make(user, name="docs")[1],
    }  # fmt: skip
    shell = blocks("sh").replace("scripts/retort", str(ROOT / "scripts" / "retort"))
    first, second = world.keys["evaluations"], world.keys["other"]
    shell = shell.replace("compare 1 2", f"compare {first} {second}")
    shell = shell.replace("--name my", "--name own").replace("my-model", "own-model")
    shell = shell.replace("report 1 ", f"report {first} ")
    done = subprocess.run(
        ["sh", "-eu", "-c", shell], cwd=tmp_path, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for told in ('"username": "ada"', "own run", "own-model", "Signed in as ada", "pass@1"):
        assert told in done.stdout
    assert (tmp_path / "report.json").stat().st_size > 1000
    python = subprocess.run(
        [sys.executable, "-c", blocks("python")], cwd=tmp_path, env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert python.stdout.count("own-") == 2, python.stderr


def test_the_statuses_are_those_of_the_schema() -> None:
    told = set(map(int, re.findall(r"^\| (\d{3}) \|", TEXT, re.MULTILINE)))
    assert told == set(MEANINGS)


@pytest.mark.django_db
def test_the_page_names_every_operation(client: Client, user: Any) -> None:
    assert client.get("/api/docs/").status_code == 302
    client.force_login(user)
    page = client.get("/api/docs/").content.decode()
    for path, methods in _schema()["paths"].items():
        assert path in page
        for told in methods.values():
            assert f'id="{told["operationId"]}"' in page
    assert "false if left out" in page
    assert "False if left out" not in page
    scripts = re.findall(r"<script[^>]*>", page)
    assert all("src=" in each for each in scripts)  # none inline
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page)  # nothing from elsewhere


def test_the_schema_tells_nothing_of_the_installation(client: Client) -> None:
    answer = client.get("/api/v1/openapi.json")
    assert answer.status_code == 200
    assert answer.json()["openapi"].startswith("3.1")


@pytest.mark.parametrize("method", ["get", "post", "delete"])
def test_other_addresses_answer_programs(client: Client, method: str) -> None:
    answer = getattr(client, method)("/api/v1/nothing/here")
    assert answer.status_code == 404
    assert set(answer.json()) == {"field", "sentence"}

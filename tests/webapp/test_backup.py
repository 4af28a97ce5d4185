"""Backup and restore, by the documented commands, between two installations with real rows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from tests.webapp.installations import Installation
from tests.webapp.samples import (
    arithmetic,
    make_benchmark,
    make_checkpoint,
    make_evaluation,
    plain_draw,
)
from webapp.benchmarks.services import install_prompt_set
from webapp.endpoints.models import Endpoint

KEY = "sk-the-endpoints-key"

READ_EVERYTHING = """
import django; django.setup()
from webapp.runs.models import Completion
from webapp.runs.files import completion_text
from webapp.benchmarks.models import Benchmark, PromptSet
from webapp.benchmarks.services import problems_file, read_prompts
from webapp.endpoints.models import Endpoint
from webapp.core.sealing import unseal
texts = [completion_text(each)["text"] for each in Completion.objects.all()]
prompts = [len(read_prompts(each)) for each in PromptSet.objects.all()]
keys = [unseal(each.sealed_key) for each in Endpoint.objects.all()]
print(len(texts), all(texts), prompts, keys)
"""


@pytest.fixture
def old(
    process_environment: dict[str, str], tmp_path: Path, settings: Any, user: Any
) -> Installation:
    """The test's own database, with an evaluation, prompts and an endpoint's key."""
    from webapp.core import sealing

    settings.MEDIA_ROOT = tmp_path / "files"
    settings.SECRET_KEY = "the key of both"
    problems = arithmetic(6)
    checkpoint = make_checkpoint(user, "a model")
    make_evaluation(user, checkpoint, make_benchmark(problems), problems, draw=plain_draw(0.5))
    install_prompt_set("prompts", problems)
    served = make_checkpoint(user, "served", path="", content_hash="")
    Endpoint.objects.create(
        checkpoint=served, base_url="https://models.example.org/v1", model="m", owner=user,
        sealed_key=sealing.seal(KEY),
    )  # fmt: skip
    (settings.MEDIA_ROOT / ".incoming-x").mkdir(parents=True)
    (settings.MEDIA_ROOT / ".incoming-x" / "half").write_text("half written")
    return Installation(connection.settings_dict["NAME"], settings.MEDIA_ROOT, process_environment)


def assert_refused(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for part in parts:
        assert part in done.stderr


def test_what_was_backed_up_is_there_again_and_readable(
    old: Installation, new: Callable[[], Installation], tmp_path: Path
) -> None:
    kept = tmp_path / "kept" / "monday"
    done = old.manage("backup", str(kept))
    assert done.returncode == 0, done.stderr
    other = new()
    done = other.manage("restore", str(kept))
    assert (done.returncode, done.stderr) == (0, "")
    assert other.rows() == old.rows()
    assert len(other.rows()) > 50
    assert other.tree() == {k: v for k, v in old.tree().items() if not k.startswith(".")}
    read = [each.python("-c", READ_EVERYTHING).stdout for each in (old, other)]
    assert read[0] == read[1]
    assert KEY in read[1]
    # A second time it is not empty, and keys that do not fit are named.
    assert_refused(other.manage("restore", str(kept)), "is not empty")
    third = new()
    done = third.manage("restore", str(kept), SECRET_KEY="another")
    assert done.returncode == 0
    assert "1 stored secrets cannot be read: set SECRET_KEY" in done.stderr
    assert KEY not in (kept / "manifest.json").read_text()
    assert_refused(old.manage("backup", str(kept)), "exists already")


def test_nothing_is_restored_over_people_or_files(
    old: Installation, new: Callable[[], Installation], tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    assert old.manage("backup", "--dated", str(kept)).returncode == 0
    (folder,) = kept.iterdir()
    other = new()
    assert other.manage("migrate", "--verbosity", "0").returncode == 0
    other.files.mkdir()
    (other.files / "mine").write_text("mine")
    assert_refused(other.manage("restore", str(folder)), "files:", "not empty")
    (other.files / "mine").unlink()
    assert other.manage(
        "createsuperuser", "--noinput", "--username", "eve", "--email", "e@example.org",
        DJANGO_SUPERUSER_PASSWORD="a long enough one",
    ).returncode == 0  # fmt: skip
    assert_refused(other.manage("restore", str(folder)), "database:", "users")
    assert other.tree() == {}


def damage(folder: Path, how: str) -> None:
    manifest = folder / "manifest.json"
    told = json.loads(manifest.read_text())
    file = folder / "files" / told["files"][0]["path"]
    match how:
        case "unfinished":
            manifest.unlink()
        case "torn manifest":
            manifest.write_text(manifest.read_text()[:-9])
        case "missing file":
            file.unlink()
        case "changed file":
            file.write_bytes(b"x" + file.read_bytes()[1:])
        case "torn dump":
            dump = folder / "database.dump"
            os.truncate(dump, dump.stat().st_size // 2)
        case "newer":
            told["migrations"].append("runs.9999_from_the_future")
            manifest.write_text(json.dumps(told))
        case "other format":
            manifest.write_text(json.dumps(told | {"format": 99}))
        case "escape":
            told["files"][0]["path"] = "../../escaped"
            manifest.write_text(json.dumps(told))


def test_a_backup_that_is_not_whole_or_not_ours_changes_nothing(
    old: Installation, new: Callable[[], Installation], tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    assert old.manage("backup", str(whole)).returncode == 0
    other = new()
    parts = {
        "unfinished": "no finished backup", "torn manifest": "damaged",
        "missing file": "missing from the backup", "changed file": "damaged",
        "torn dump": "database.dump", "newer": "runs.9999_from_the_future",
        "other format": "format 99", "escape": "outside",
    }  # fmt: skip
    for how, part in parts.items():
        copy = tmp_path / how.replace(" ", "-")
        shutil.copytree(whole, copy)
        damage(copy, how)
        assert_refused(other.manage("restore", str(copy)), part)
        assert other.rows() == []
        assert not other.files.exists() or other.tree() == {}
    assert other.manage("restore", str(whole)).returncode == 0


def test_a_backup_that_cannot_be_written_leaves_nothing(old: Installation, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    done = old.manage(
        "backup", str(place / "b"), DATABASE_URL=old.environment["DATABASE_URL"] + "x"
    )
    assert done.returncode != 0
    (place / "file").write_text("")
    assert_refused(old.manage("backup", str(place / "file" / "b")), "folder:")
    assert [path.name for path in place.iterdir()] == ["file"]

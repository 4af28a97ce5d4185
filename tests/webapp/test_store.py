"""The store over HTTP: moto's server, hosts with folders of their own, a line that breaks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from django.core.files.storage import storages
from django.core.files.uploadedfile import SimpleUploadedFile

from distiller.checkpoints import content_hash
from distiller.recipe import ChatSource, CorpusPlan, Recipe
from evaluator.errors import StoreError
from tests.bucket import Host, Line
from tests.webapp import models
from tests.webapp.samples import everything
from webapp.checkpoints import cards
from webapp.checkpoints.models import Checkpoint
from webapp.core import store
from webapp.core.cache import Cache
from webapp.core.errors import UserError
from webapp.core.models import User
from webapp.projects.access import first_project
from webapp.runs import files, handover, stages
from webapp.runs.launching import chats
from webapp.runs.models import Run, Stage

ROOT = Path(__file__).resolve().parents[2]


def write(root: Path, relative: str, data: bytes) -> None:
    path = root / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def tree(root: Path) -> dict[str, bytes]:
    """The files under their names, without the cache's own."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and ".cache" not in path.parts
    }


def test_what_is_wanted_no_more_is_given_up_and_leaves_nothing(host: Host) -> None:
    alpha = host("alpha")
    write(alpha, "prompts/large.jsonl", os.urandom(9 << 20))
    store.publish("prompts/large.jsonl")
    beta, asked = host("beta"), iter([True, True, True, False])
    with pytest.raises(store.UnwantedError), store.as_long_as(lambda: next(asked)):
        store.fetch("prompts/large.jsonl")
    assert tree(beta) == {}
    assert not list(beta.rglob(".part-*"))
    assert store.fetch("prompts/large.jsonl").stat().st_size == 9 << 20


def test_what_one_host_publishes_another_has_whole(host: Host) -> None:
    alpha = host("alpha")
    there = set(store.names())  # the bucket is the module's
    write(alpha, "prompts/p.jsonl", b"prompts")
    for name, data in (("config.json", b"{}"), ("a/model.safetensors", os.urandom(9 << 20))):
        write(alpha, f"checkpoints/c/{name}", data)
    store.publish("prompts/p.jsonl")
    store.publish("checkpoints/c")
    beta = host("beta")
    assert store.fetch("prompts/p.jsonl").read_bytes() == b"prompts"
    assert store.fetch("checkpoints/c") == beta / "checkpoints" / "c"
    assert tree(beta) == tree(alpha)
    assert not store.fetch("runs/1/2/segments/none").exists()
    store.remove("checkpoints/c")
    assert set(store.names()) == there | {"prompts/p.jsonl"}
    host("gamma")
    assert not store.fetch("checkpoints/c").exists()


def test_a_folder_without_its_manifest_is_nowhere(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files are sent first: whoever is killed in between has published nothing."""
    alpha = host("alpha")
    write(alpha, "checkpoints/half/config.json", b"{}")
    monkeypatch.setattr(store, "_put", lambda name, data: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        store.publish("checkpoints/half")
    beta = host("beta")
    assert not store.fetch("checkpoints/half").exists()
    assert tree(beta) == {}


def test_another_object_under_the_name_is_refused_for_good(host: Host) -> None:
    alpha = host("alpha")
    write(alpha, "runs/1/2/segments/s", b"rows")
    store.publish("runs/1/2/segments/s")
    place = storages["default"].bucket.Object("runs/1/2/segments/s")
    for changed in ({"Metadata": dict(place.metadata)}, {}):
        place.put(Body=b"ROWS", **changed)
        beta = host(f"beta{len(changed)}")
        with pytest.raises(UserError, match="runs/1/2/segments/s"):
            store.fetch("runs/1/2/segments/s")
        assert tree(beta) == {}
        assert store.cache().size_bytes() == 0


@pytest.mark.parametrize("limit", [0, 500, 300_000])
def test_a_line_that_breaks_is_worth_another_try(host: Host, line: Line, limit: int) -> None:
    alpha = host("alpha")
    data = os.urandom(1 << 20)
    write(alpha, "checkpoints/d/model.safetensors", data)
    store.publish("checkpoints/d")
    beta = host("beta")
    line.limit = limit
    with pytest.raises(StoreError, match="checkpoints/d"):
        store.fetch("checkpoints/d")
    assert tree(beta) == {}
    line.limit = None
    assert (store.fetch("checkpoints/d") / "model.safetensors").read_bytes() == data
    store.remove("checkpoints/d")


def test_wrong_rights_are_no_reason_to_try_again(host: Host, settings: Any) -> None:
    host("alpha")
    options = settings.STORAGES["default"]["OPTIONS"] | {"bucket_name": "another"}
    settings.STORAGES = {
        **settings.STORAGES, "default": settings.STORAGES["default"] | {"OPTIONS": options},
    }  # fmt: skip
    write(Path(settings.MEDIA_ROOT), "prompts/q", b"q")
    with pytest.raises(UserError, match="bucket's name and rights"):
        store.publish("prompts/q")
    storages["default"].connection.meta.client.close()


def test_a_judge_is_told_its_own_paths(host: Host) -> None:
    """A worker that may not read the database gets its spec through the store."""
    alpha = host("alpha")
    stage = Stage(pk=8, run_id=7, kind="grade", queue="judge")
    write(alpha, "benchmarks/b.jsonl", b"problems")
    write(alpha, "runs/7/6/segments/s", b"rows")
    store.publish("benchmarks/b.jsonl")
    store.publish("runs/7/6/segments/s")
    spec = {
        "kind": "grade", "stage_folder": str(files.stage_folder(stage)),
        "segments_folder": str(files.segments_folder(stage)), "protocol": {"corpus": "/etc"},
        "problems_file": str(alpha / "benchmarks/b.jsonl"),
        "engine": {"name": "openai", "model": "/x"},
        "segment_files": [str(alpha / "runs/7/6/segments/s")],
    }  # fmt: skip
    handover.offer_spec(stage, spec)
    beta = host("beta")
    path = handover.take_spec(stage)
    handover.bring(path)
    told = path.read_text()
    assert str(alpha) not in told
    assert '"corpus": "/etc"' in told  # only fields that name files are moved
    assert (beta / "benchmarks/b.jsonl").read_bytes() == b"problems"
    assert (beta / "runs/7/6/segments/s").read_bytes() == b"rows"
    with pytest.raises(UserError, match="retry"):
        handover.take_spec(Stage(pk=9, run_id=7, kind="grade", queue="judge"))


def test_chats_reach_the_hosts_whose_children_read_them(host: Host, line: Line, user: User) -> None:
    def uploaded(text: str) -> SimpleUploadedFile:
        return SimpleUploadedFile("chats.jsonl", text.encode())

    alpha = host("alpha")
    recipe = Recipe.model_validate(
        {"teacher": "t", "base": "b", "student": "s", "prompts": {"set": "p"}}
    )
    kept = chats.keep(uploaded('{"prompt": "hello", "response": "hi"}\n'), user)
    plan = CorpusPlan(general=(ChatSource(file=kept),))
    recipe = recipe.model_copy(update={"corpus": plan})
    beta = host("beta")
    assert chats.is_kept(kept)
    assert not chats.is_kept(kept.replace(".jsonl", "0.jsonl"))
    for name, told in (("reads", chats.located(recipe)), ("draws", recipe)):
        spec = {"recipe": told.model_dump(mode="json"), "base_model": str(beta / "checkpoints/b")}
        if name == "draws":  # its recipe names them as the database does, and it reads none
            del spec["base_model"]
        write(beta, name, json.dumps(spec).encode())
        handover.bring(beta / name)
        assert (beta / kept).is_file()
    assert (beta / kept).read_bytes() == (alpha / kept).read_bytes()
    line.limit = 0
    with pytest.raises(UserError, match=r"general chats: store: .* Upload them again"):
        chats.keep(uploaded('{"prompt": "hello", "response": "ho"}\n'), user)


def test_another_host_may_follow_up_a_training(host: Host, user: User) -> None:
    """The one that trained may die between its last word and the student's registration."""
    alpha = host("alpha")
    lease = "runs/1/2/lease/checkpoint"
    folder = models.write(alpha / lease, models.model_files())
    digest = content_hash(folder)
    stage = Stage(pk=2, run_id=1, kind="train", queue="gpu")
    result = handover.give(stage, {"checkpoint": str(folder), "content_hash": digest, "steps": 1})
    assert result == {"checkpoint": lease, "content_hash": digest, "steps": 1}
    assert handover.trained(result) == (folder, True)
    before = tree(alpha)
    host("beta")
    base = Checkpoint.objects.create(
        project=first_project(), name="base", path="checkpoints/base", owner=user
    )
    recipe = {"teacher": "t", "base": "base", "student": "pupil", "prompts": {"set": "p"}}
    run = Run.objects.create(
        project=first_project(), kind=Run.Kind.DISTILLATION, name="r", config=recipe, owner=user
    )
    stage = Stage.objects.create(
        run=run, kind="train", title="t", position=0, queue="gpu", config={"base": base.pk},
        result=result,
    )  # fmt: skip
    stages.REGISTRY["train"].on_finished(stage)
    pupil = Checkpoint.objects.get(name="pupil")
    assert (pupil.content_hash, pupil.parent, pupil.produced_by) == (digest, base, run)
    assert stage.result["checkpoint"] == pupil.path == f"checkpoints/{digest}"
    assert content_hash(store.fetch(pupil.path)) == digest
    assert tree(alpha) == before
    host("gamma")  # the web server, which has none of it yet
    name, size, blocks = cards.tar_of(Checkpoint.objects.get(name="pupil"), everything())
    assert (name, sum(map(len, blocks))) == ("pupil.tar", size)
    store.remove(pupil.path)


def test_without_a_bucket_nothing_is_loaded_or_done() -> None:
    program = (
        "import sys, django; django.setup();"
        "from webapp.core import store;"
        "store.publish('x'); print(store.fetch('x'));"
        "print(sorted({'boto3', 'botocore', 'storages'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False,
        env={"PATH": os.environ["PATH"], "DJANGO_SETTINGS_MODULE": "webapp.config.settings",
             "RETORT_VAR": "/nowhere", "SECRET_KEY": "x"},
    )  # fmt: skip
    assert done.stdout.splitlines() == ["/nowhere/files/x", "[]"], done.stderr


# --- the copies


def fill(cache: Cache, name: str, size: int, age: float) -> None:
    """A copy that was last used so long ago."""
    with cache.incoming() as part:
        part.write_bytes(name.encode() * size)
        cache.keep(part, f"digest-{name}", f"folder/{name}")
    then = time.time() - age
    os.utime(cache._objects / f"digest-{name}", (then, then))


def kept(root: Path) -> set[str]:
    folder = root / "folder"
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def test_the_least_recently_used_copies_go_and_none_that_is_in_use(tmp_path: Path) -> None:
    cache = Cache(tmp_path, most_bytes=350)
    with cache.holding():
        for age, name in zip((900, 800, 700), "abc", strict=True):
            fill(cache, name, 100, age)
        cache.use("folder/a")
        os.utime(cache._objects / "digest-a", (0, 0))  # long ago, and yet in use
        fill(cache, "d", 100, 600)
        assert kept(tmp_path) == {"a", "c", "d"}
        assert cache.size_bytes() == 300
    fill(cache, "e", 100, 500)
    assert kept(tmp_path) == {"c", "d", "e"}
    # A name that stands for something else by now is left alone.
    (tmp_path / "folder" / "c").unlink()
    (tmp_path / "folder" / "c").write_bytes(b"mine")
    fill(cache, "f", 200, 400)
    assert (tmp_path / "folder" / "c").read_bytes() == b"mine"
    assert cache.size_bytes() <= 350


def test_what_a_killed_process_held_is_free(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from webapp.core.cache import Cache\n"
        "cache = Cache(Path(sys.argv[1]), 150)\n"
        "with cache.holding():\n"
        "    cache.use('folder/a'); print('held', flush=True); time.sleep(600)\n"
    )
    cache = Cache(tmp_path, most_bytes=150)
    fill(cache, "a", 100, 900)
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    with holder.stdout:
        assert holder.stdout.readline() == b"held\n"
    os.utime(cache._objects / "digest-a", (0, 0))
    fill(cache, "b", 100, 800)
    assert "a" in kept(tmp_path)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    fill(cache, "c", 50, 700)
    assert "a" not in kept(tmp_path)


def test_equal_files_lie_once(tmp_path: Path) -> None:
    cache = Cache(tmp_path, most_bytes=0)
    fill(cache, "a", 100, 0)
    assert cache.link("digest-a", "elsewhere/b")
    assert not cache.link("digest-unknown", "elsewhere/c")
    assert (tmp_path / "elsewhere/b").samefile(tmp_path / "folder/a")
    assert cache.size_bytes() == 100

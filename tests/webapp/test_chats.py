"""Chats that are uploaded for a corpus: checked, counted, and swept where no run has them."""

from __future__ import annotations

import gzip
import json
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone

from distiller.recipe import Recipe
from tests.webapp.launch_scene import CHATS, RECIPE, install, pasted, shown
from tests.webapp.samples import make_project, make_run
from webapp.checkpoints import uploads
from webapp.checkpoints.models import Checkpoint
from webapp.checkpoints.uploads import used_bytes
from webapp.core.errors import UserError
from webapp.housekeeping import garbage
from webapp.projects.models import Role
from webapp.runs import services, stages
from webapp.runs.launching import chats, recipe_yaml
from webapp.runs.models import KeptChats, Run

pytestmark = pytest.mark.django_db


@pytest.fixture
def here(user: Any, settings: Any, tmp_path: Path) -> Any:
    """The base of what can be launched."""
    return install(user, settings, tmp_path)


@pytest.fixture
def page(here: Any, page: Client) -> Client:
    return page


@pytest.mark.parametrize("name", ["chats.jsonl", "chats.jsonl.gz"])
def test_uploaded_chats_outlive_a_mistake_and_reach_the_children(
    page: Client, settings: Any, name: str
) -> None:
    body = gzip.compress(CHATS) if name.endswith(".gz") else CHATS
    values = shown(pasted(page, RECIPE))
    wrong = values | {"epochs": "x", "general_file": SimpleUploadedFile(name, body)}
    response = page.post("/runs/distil/", wrong)
    assert response.status_code == 400
    assert "uploaded before are used" in response.content.decode()
    again = shown(response) | {"epochs": "2"}
    assert page.post("/runs/distil/", again).status_code == 302, response.content.decode()
    run = Run.objects.get()
    [source] = run.config["corpus"]["general"]
    assert (settings.MEDIA_ROOT / source["file"]).read_bytes() == CHATS
    assert source["weight"] == 1.0
    assert run.config["corpus"]["traces_weight"] == 3.0
    spec = stages.build_spec(run.stages.get(kind="preflight"), "cpu")
    assert Path(spec["recipe"]["corpus"]["general"][0]["file"]).read_bytes() == CHATS


@pytest.mark.parametrize(
    ("name", "body", "word"),
    [
        ("c.jsonl", b"", "holds none"), ("c.jsonl", b"{\n", "line 1"), ("c.jsonl", b"\xff", "read"),
        ("c.jsonl.gz", b"no gzip", "unpacked"),
        ("c.jsonl.gz", gzip.compress(CHATS, mtime=0)[:-9], "unpacked"),
        ("c.jsonl", b'{"prompt": 1}\n', "line 1"),
    ],
)  # fmt: skip
def test_bad_chats_are_refused_and_leave_nothing(
    page: Client, settings: Any, name: str, body: bytes, word: str
) -> None:
    values = shown(pasted(page, RECIPE)) | {"general_file": SimpleUploadedFile(name, body)}
    response = page.post("/runs/distil/", values)
    assert response.status_code == 400
    errors = response.context["form"].errors
    assert set(errors) == {"general_file"}
    assert word in errors["general_file"][0]
    assert str(settings.MEDIA_ROOT) not in errors["general_file"][0]
    assert list((settings.MEDIA_ROOT / "chats").iterdir()) == []


@pytest.mark.parametrize("spared", [-1, 0])
def test_chats_never_fill_the_disk(
    user: Any, settings: Any, tmp_path: Path, monkeypatch: Any, spared: int
) -> None:
    settings.MEDIA_ROOT = tmp_path
    free = chats.MOST_BYTES + chats.SPARED_BYTES + spared
    monkeypatch.setattr(chats.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    uploaded = SimpleUploadedFile("c.jsonl", CHATS)
    if spared < 0:
        with pytest.raises(UserError, match="nearly full"):
            chats.keep(uploaded, user)
        assert list((tmp_path / "chats").iterdir()) == []
    else:
        assert chats.is_kept(chats.keep(uploaded, user))


def test_kept_chats_count_in_their_persons_quota(
    user: Any, admin: Any, settings: Any, tmp_path: Path
) -> None:
    settings.MEDIA_ROOT = tmp_path
    settings.RETORT_UPLOAD_QUOTA_BYTES = len(CHATS) + 10
    other = CHATS.replace(b"Hello", b"Howdy")
    for _ in range(2):  # the same again is no more
        chats.keep(SimpleUploadedFile("c.jsonl", CHATS), user)
    assert used_bytes(user) == len(CHATS)
    for again in (other, gzip.compress(other)):
        name = "c.jsonl" if again == other else "c.jsonl.gz"
        with pytest.raises(UserError, match="general chats: your quota is") as refused:
            chats.keep(SimpleUploadedFile(name, again), user)
        assert refused.value.field == "general_file"
    chats.keep(SimpleUploadedFile("c.jsonl", CHATS), admin)  # shared files count for each
    assert [file.stat().st_size for file in (tmp_path / "chats").iterdir()] == [len(CHATS)]
    with pytest.raises(UserError, match="your quota"):
        uploads.begin(user, "m", [("config.json", 11), ("model.safetensors", 1)])


def test_chats_of_a_refused_form_go_after_the_grace_time(
    page: Client, user: Any, settings: Any
) -> None:
    values = shown(pasted(page, RECIPE))
    sent = {"general_file": SimpleUploadedFile("c.jsonl", CHATS)}
    assert page.post("/runs/distil/", values | sent).status_code == 302
    sent = {"general_file": SimpleUploadedFile("c.jsonl", CHATS * 2)}
    refused = page.post("/runs/distil/", values | sent | {"epochs": "x", "student": "t"})
    assert refused.status_code == 400
    assert used_bytes(user) - storage_before(user) == 3 * len(CHATS)
    start, grace = timezone.now(), timedelta(hours=1)
    garbage.collect(grace=0 * grace)
    assert KeptChats.objects.filter(owner=user).count() == 2  # too new to be anybody's garbage
    KeptChats.objects.update(kept_at=start - settings.RETORT_GARBAGE_HOURS * grace)
    for hours, left in ((0, 2), (0.9, 2), (1, 1)):
        garbage.collect(grace=grace, now=start + hours * grace)
        assert len(list((settings.MEDIA_ROOT / "chats").iterdir())) == left
        assert KeptChats.objects.filter(owner=user).count() == left
    [source] = Run.objects.get().config["corpus"]["general"]
    assert chats.is_kept(source["file"])
    again = page.post("/runs/distil/", shown(refused) | {"epochs": "1"})
    assert "upload them again" in again.context["form"].errors["general_file"][0]


def test_chats_that_are_uploaded_again_are_new_again(
    user: Any, settings: Any, tmp_path: Path
) -> None:
    settings.MEDIA_ROOT = tmp_path / "files"

    def upload() -> Path:
        path = chats.keep(SimpleUploadedFile("c.jsonl", CHATS), user)
        return Path(settings.MEDIA_ROOT / path)

    kept = upload()
    for again in (True, False):
        long_ago = timezone.now() - timedelta(hours=2 * settings.RETORT_GARBAGE_HOURS)
        KeptChats.objects.update(kept_at=long_ago)
        if again:
            assert upload() == kept
        garbage.collect(grace=timedelta(0))
        assert kept.exists() is again
    assert not KeptChats.objects.exists()


def storage_before(user: Any) -> int:
    """What the person's checkpoints take."""
    return sum(each.size_bytes for each in Checkpoint.objects.filter(owner=user))


def test_chats_of_others_are_used_only_by_who_sees_a_run_of_them(
    here: Any, user: Any, django_user_model: Any
) -> None:
    eve = django_user_model.objects.create_user("eve")
    lab = make_project("Lab", {eve: Role.OPERATOR})
    path = chats.keep(SimpleUploadedFile("c.jsonl", CHATS), eve)
    fields = recipe_yaml.read_fields(RECIPE) | {"corpus": {"general": [{"file": path}]}}
    recipe = Recipe.model_validate(fields)
    config = recipe.model_dump(mode="json")
    make_run(eve, "theirs", Run.Kind.DISTILLATION, config=config, project=lab)
    with pytest.raises(UserError, match="was not uploaded here") as refused:
        services.launch_distillation(owner=user, recipe=recipe)
    assert refused.value.field == "corpus"
    lab.open = True
    lab.save()
    assert services.launch_distillation(owner=user, recipe=recipe).config == config


def test_a_packed_bomb_ends_at_the_limit(
    user: Any, settings: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    settings.MEDIA_ROOT = tmp_path
    monkeypatch.setattr(chats, "MOST_BYTES", 4 << 20)
    bomb = SimpleUploadedFile("c.jsonl.gz", gzip.compress(b"\n" * (64 << 20)))
    with pytest.raises(UserError, match="more than 4 MiB"):
        chats.keep(bomb, user)
    assert list((tmp_path / "chats").iterdir()) == []


@pytest.mark.parametrize("path", ["/etc/passwd", "../secret", "chats/../secret.jsonl", "chats/x"])
def test_a_recipe_cannot_have_a_file_of_this_host_read(page: Client, path: str) -> None:
    one = RECIPE + f"corpus: {{general: [{{file: {json.dumps(path)}}}]}}\n"
    response = pasted(page, one)
    assert "general_file" in response.context["form"].notes
    several = RECIPE + (
        f"corpus: {{general: [{{name: a, file: {json.dumps(path)}}}, {{name: b, file: x}}]}}\n"
    )
    refused = page.post("/runs/distil/", shown(pasted(page, several)))
    assert refused.status_code == 400
    assert "was not uploaded here" in refused.context["form"].errors["general_file"][0]
    values = shown(pasted(page, RECIPE)) | {"general_kept": path}
    assert page.post("/runs/distil/", values).status_code == 400
    assert not Run.objects.exists()

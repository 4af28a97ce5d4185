"""Models from the hub and from the server's disk: pinned, hashed, never led astray."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from distiller import verifying
from tests.webapp.hub_stub import COMMIT, HubStub, serving
from tests.webapp.models import model_files, write
from webapp.checkpoints import fetching, intake, uploads
from webapp.checkpoints.models import Checkpoint, Upload
from webapp.core.errors import UserError

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    """These tests are the worker, and look at the files without torch."""
    settings.RETORT_RETRY_SECONDS = 0.0
    monkeypatch.setattr("webapp.config.celery.ask_to_take_in", lambda: None)
    monkeypatch.setattr(
        intake, "verify_in_child", lambda folder, **_: verifying.checkpoints.inspect(folder)
    )


@pytest.fixture
def hub(settings: Any) -> Iterator[HubStub]:
    files = model_files() | {
        "README.md": b"# a model",
        "pytorch_model.bin": b"\x80\x04K\x01.",
        "modeling_tiny.py": b"import os",
        "original/params.json": b"{}",
        "consolidated.safetensors": b"another format",
    }
    with serving(HubStub(files)) as stub:
        settings.RETORT_HUB = stub.url
        yield stub


def work(upload: Upload, turns: int) -> Upload:
    for _ in range(turns):
        job = intake.claim("host/1")
        if job is None:
            break
        intake.carry_out(job)
    upload.refresh_from_db()
    return upload


def fetched(user: Any, turns: int = 2) -> Upload:
    return work(intake.begin_from_hub(user, "mine", "org/tiny", "v1.0"), turns)


# --- the hub


def test_a_model_is_fetched_at_the_commit_that_its_revision_named(user: Any, hub: HubStub) -> None:
    upload = fetched(user)
    assert upload.state == Upload.State.REGISTERED, upload.reason
    assert upload.revision == COMMIT
    folder = uploads.folder_of(upload.pk)
    assert not folder.exists()
    files = [path.rpartition("/")[2] for path, _ in hub.asked[1:]]
    assert set(files) == {*model_files(), "README.md"}
    assert all(f"/resolve/{COMMIT}/" in path for path, _ in hub.asked[1:])
    assert hub.asked[0][0] == "/api/models/org/tiny/revision/v1.0"
    assert not [name for each in hub.headers for name in each if name.lower() == "authorization"]
    digests = dict(upload.files.values_list("path", "digest"))
    assert digests["model.safetensors"].startswith("sha256:")
    assert digests["config.json"].startswith("git:")


def test_what_every_repository_holds_beside_the_model_is_left_out_and_said(
    user: Any, hub: HubStub
) -> None:
    """A listing as the hub gives it: git's file, documents of any name, other formats."""
    hub.files |= {
        ".gitattributes": b"*.safetensors filter=lfs",
        "Model Card (v1).pdf": b"%PDF",
        "USE POLICY.md": b"be kind",
        "onnx/model.onnx": b"x",
        "onnx/model.onnx_data": b"x",
    }
    upload = fetched(user, turns=1)
    assert upload.state == Upload.State.CHECKING, upload.reason
    assert upload.left_out == (
        ".gitattributes, Model Card (v1).pdf, USE POLICY.md, consolidated.safetensors, "
        "modeling_tiny.py, onnx/, original/, pytorch_model.bin"
    )
    page = Client()
    page.force_login(user)
    assert "onnx/, original/" in page.get(upload.get_absolute_url()).content.decode()
    assert work(upload, 1).state == Upload.State.REGISTERED, upload.reason
    arrived = page.get(upload.get_absolute_url(), follow=True).content.decode()
    assert "Not taken, as no model is loaded from them: .gitattributes" in arrived


def test_a_repository_with_an_adapter_is_refused_unfetched(user: Any, hub: HubStub) -> None:
    """Without it the model would be another one."""
    hub.files["adapter_config.json"] = b"{}"
    upload = fetched(user, turns=1)
    assert upload.state == Upload.State.REFUSED
    assert "brings an adapter ('adapter_config.json')" in upload.reason
    assert len(hub.asked) == 1


def test_a_broken_connection_goes_on_where_the_file_ends(user: Any, hub: HubStub) -> None:
    hub.breaks_after["model.safetensors"] = 1000
    upload = fetched(user, turns=1)
    assert (upload.state, upload.failures) == (Upload.State.FETCHING, 1)
    assert "tried again" in upload.reason
    here = upload.files.get(path="model.safetensors").offset_bytes
    assert work(upload, 2).state == Upload.State.REGISTERED, upload.reason
    asked = [ranged for path, ranged in hub.asked if path.endswith("model.safetensors")]
    assert asked == [None, f"bytes={here}-" if here else None]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_other_bytes_than_the_hub_lists_are_never_taken(user: Any, hub: HubStub, name: str) -> None:
    right = hub.files[name]
    hub.lies[name] = right[:-1] + bytes([right[-1] ^ 1])
    upload = fetched(user, turns=9)
    assert upload.state == Upload.State.REFUSED
    assert f"{name} is not what the hub says" in upload.reason
    assert not Checkpoint.objects.exists()
    assert not uploads.folder_of(upload.pk).exists()


def test_a_redirect_to_a_private_network_is_not_followed(
    user: Any, hub: HubStub, settings: Any
) -> None:
    settings.RETORT_ALLOW_PRIVATE_ENDPOINTS = False
    with serving(HubStub(model_files())) as secret:
        for where in (secret.url.replace("http", "https"), "https://localhost:1"):
            hub.redirects = {"model.safetensors": f"{where}/model.safetensors"}
            upload = fetched(user, turns=1)
            assert upload.state == Upload.State.REFUSED
            assert "private network" in upload.reason
        hub.redirects = {"model.safetensors": f"{secret.url}/model.safetensors"}
        assert "where nothing is fetched from" in fetched(user, turns=1).reason
        hub.redirects = {"model.safetensors": "file:///etc/passwd"}
        assert "where nothing is fetched from" in fetched(user, turns=1).reason
        assert secret.asked == []


def test_a_redirect_within_the_hub_is_followed_and_a_loop_is_not(user: Any, hub: HubStub) -> None:
    hub.redirects = {f"/{COMMIT}/config.json": "/cdn/config.json"}
    assert fetched(user).state == Upload.State.REGISTERED
    Checkpoint.objects.all().delete()
    hub.redirects = {"config.json": "/again/config.json"}
    assert fetched(user, turns=1).state == Upload.State.REFUSED


@pytest.mark.parametrize(
    ("status", "why"), [(401, "your own account"), (403, "your own account"), (404, "has no")]
)
def test_what_the_hub_refuses_is_said(user: Any, hub: HubStub, status: int, why: str) -> None:
    hub.status = {"v1.0": status}
    upload = fetched(user, turns=1)
    assert upload.state == Upload.State.REFUSED
    assert why in upload.reason


def test_a_hub_that_is_away_is_tried_again(user: Any, hub: HubStub) -> None:
    hub.status = {"v1.0": 503}
    upload = fetched(user, turns=1)
    assert upload.state == Upload.State.FETCHING
    hub.status = {}
    assert work(upload, 2).state == Upload.State.REGISTERED


def test_a_repository_without_safetensors_is_refused_unfetched(user: Any, hub: HubStub) -> None:
    hub.files = {"pytorch_model.bin": b"x", "config.json": b"{}"}
    upload = fetched(user, turns=1)
    assert "no safetensors weights" in upload.reason
    assert len(hub.asked) == 1


def test_the_quota_holds_for_the_hub_too(user: Any, hub: HubStub, settings: Any) -> None:
    settings.RETORT_UPLOAD_QUOTA_BYTES = 2000
    assert "your quota is 2,000 bytes" in fetched(user, turns=1).reason
    assert len(hub.asked) == 1


@pytest.mark.parametrize(
    ("repository", "revision", "field"),
    [
        ("", "", "repository"), ("a/b/c", "", "repository"), ("../x", "", "repository"),
        ("a/..", "", "repository"), ("a b/c", "", "repository"), ("http://x/y", "", "repository"),
        ("a/b", "../../api", "revision"), ("a/b", "a b", "revision"), ("a/b", "?x=", "revision"),
        ("a/b\nHost: x", "", "repository"),
    ],
)  # fmt: skip
def test_ids_that_are_none(user: Any, repository: str, revision: str, field: str) -> None:
    with pytest.raises(UserError) as refusal:
        intake.begin_from_hub(user, "mine", repository, revision)
    assert refusal.value.field == field
    assert not Upload.objects.exists()


# --- the server's disk


@pytest.fixture
def root(tmp_path: Path, settings: Any) -> Path:
    settings.RETORT_IMPORT_ROOT = str(tmp_path / "models")
    write(tmp_path / "models" / "org" / "tiny", model_files())
    return tmp_path / "models"


def copied(admin: Any, folder: str = "org/tiny", turns: int = 2) -> Upload:
    return work(intake.begin_from_folder(admin, "mine", folder), turns)


def test_a_folder_is_copied_and_stays(admin: Any, root: Path) -> None:
    upload = copied(admin)
    assert upload.state == Upload.State.REGISTERED, upload.reason
    assert {p.name: p.read_bytes() for p in (root / "org/tiny").iterdir()} == model_files()
    found = Checkpoint.objects.get()
    assert (root / "org/tiny/config.json").stat().st_ino != (
        (Path(uploads.settings.MEDIA_ROOT) / found.path / "config.json").stat().st_ino
    )
    assert copied_digest(upload) == "sha256"


def test_a_clone_is_copied_without_what_git_keeps_in_it(admin: Any, root: Path) -> None:
    clone = root / "org/tiny"
    (clone / ".git/objects/ab").mkdir(parents=True)
    for number in range(300):  # more than an upload may have files
        (clone / f".git/objects/ab/{number}").write_text("x")
    (clone / ".git/config").symlink_to("/etc/passwd")
    for name in (".gitattributes", ".gitignore", "USE POLICY.md"):
        (clone / name).write_text("x")
    upload = copied(admin)
    assert upload.state == Upload.State.REGISTERED, upload.reason
    assert upload.left_out == ".git/, .gitattributes, .gitignore, USE POLICY.md"
    assert set(upload.files.values_list("path", flat=True)) == set(model_files())


def test_other_names_that_are_not_ours_are_refused(admin: Any, root: Path) -> None:
    """Of what a model may be loaded from, nothing is left out."""
    (root / "org/tiny/my weights.safetensors").write_bytes(b"")
    assert "'my weights.safetensors' is not accepted" in copied(admin, turns=1).reason


def copied_digest(upload: Upload) -> str:
    (kind,) = {digest.partition(":")[0] for digest in upload.files.values_list("digest", flat=True)}
    return kind


def test_only_administrators_take_folders(user: Any, root: Path) -> None:
    with pytest.raises(UserError, match="only administrators"):
        intake.begin_from_folder(user, "mine", "org/tiny")
    page = Client()
    page.force_login(user)
    assert page.get(reverse("checkpoints:folder")).status_code == 403
    assert "server’s disk" not in page.get(reverse("checkpoints:upload")).content.decode()


@pytest.mark.parametrize(
    "folder", ["..", "org/../..", "/etc", "", ".", "org/none", "link", "org/tiny/config.json"]
)
def test_paths_that_leave_the_root(admin: Any, root: Path, folder: str) -> None:
    (root / "link").symlink_to("/etc")
    with pytest.raises(UserError):
        intake.begin_from_folder(admin, "mine", folder)
    assert not Upload.objects.exists()


def test_links_and_pipes_in_the_folder_are_refused(admin: Any, root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("{}")
    for make in (
        lambda path: path.symlink_to(tmp_path / "secret.json"),
        os.mkfifo,
    ):
        bad = root / "org/tiny/extra.json"
        make(bad)
        upload = copied(admin, turns=1)
        assert upload.state == Upload.State.REFUSED
        assert "extra.json" in upload.reason
        bad.unlink()


def test_a_folder_that_became_a_link_is_not_followed(
    admin: Any, root: Path, tmp_path: Path
) -> None:
    upload = intake.begin_from_folder(admin, "mine", "org/tiny")
    (root / "org").rename(tmp_path / "elsewhere")
    (root / "org").symlink_to(tmp_path / "elsewhere")
    assert work(upload, 1).state == Upload.State.REFUSED


def test_a_copy_that_differs_from_what_was_read_is_not_taken(
    admin: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "_digest", lambda place, like: "sha256:other")
    assert "arrived changed" in copied(admin, turns=9).reason


# --- the pages


def test_the_forms_begin_and_refuse(admin: Any, hub: HubStub, root: Path) -> None:
    page = Client()
    page.force_login(admin)
    bad = page.post(reverse("checkpoints:hub"), {"repository": "a/b/c"})
    assert bad.status_code == 400
    assert "is no OWNER/NAME" in bad.content.decode()
    good = page.post(reverse("checkpoints:hub"), {"repository": "org/tiny"})
    upload = Upload.objects.get()
    assert good["Location"] == upload.get_absolute_url()
    assert (upload.name, upload.revision) == ("org/tiny", "main")
    text = page.get(upload.get_absolute_url()).content.decode()
    assert "From the hub: org/tiny" in text
    assert "Being fetched" in text
    address = reverse("checkpoints:folder")
    assert page.get(address).status_code == 200
    assert "below" in page.post(address, {"folder": "../x", "name": "n"}).content.decode()
    assert page.post(address, {"folder": "org/tiny", "name": "n"}).status_code == 302


def test_a_browser_adds_nothing_to_what_a_worker_fetches(user: Any, hub: HubStub) -> None:
    hub.breaks_after["model.safetensors"] = 1000
    upload = fetched(user, turns=1)
    file = upload.files.get(path="model.safetensors")
    page = Client()
    page.force_login(user)
    address = reverse("checkpoints:tus-file", args=[upload.pk, file.pk])
    answer = page.patch(
        address, b"abc", content_type="application/offset+octet-stream",
        headers={"Tus-Resumable": "1.0.0", "Upload-Offset": str(file.offset_bytes)},
    )  # fmt: skip
    assert answer.status_code == 400
    assert page.delete(address, headers={"Tus-Resumable": "1.0.0"}).status_code == 400
    assert page.post(reverse("checkpoints:finish", args=[upload.pk])).status_code == 400

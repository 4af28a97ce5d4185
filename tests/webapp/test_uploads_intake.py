"""Quarantine: nothing is a checkpoint before a worker has verified it, and nothing hostile ever."""

from __future__ import annotations

import dataclasses
import io
import json
import struct
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from kombu.exceptions import OperationalError

from distiller import verifying
from distiller.errors import CheckpointError
from tests.webapp.models import CONFIG, model_files, shapes, weights
from webapp.checkpoints import intake, queries, uploads
from webapp.checkpoints.models import Checkpoint, Upload
from webapp.core.errors import UserError

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """No doorbell: these tests are the worker."""
    monkeypatch.setattr("webapp.config.celery.ask_to_take_in", lambda: None)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the files here, where a child (and torch) would take seconds."""

    def look(folder: Path, **_: Any) -> Any:
        return verifying.checkpoints.inspect(folder)

    monkeypatch.setattr(intake, "verify_in_child", look)


def sent(owner: Any, files: dict[str, bytes], name: str = "model") -> Upload:
    upload = uploads.begin(owner, name)
    for path, data in files.items():
        uploads.append(uploads.declare(upload, path, len(data)), 0, io.BytesIO(data))
    return upload


def worked(upload: Upload, times: int = 1) -> Upload:
    """A worker's turns at whatever waits."""
    for _ in range(times):
        job = intake.claim("host/1")
        assert job is not None
        intake.carry_out(job)
    upload.refresh_from_db()
    return upload


def on_disk(upload: Upload) -> bool:
    return uploads.folder_of(upload.pk).exists()


# --- quarantine


def test_nothing_can_be_used_before_a_worker_has_verified_it(user: Any, in_process: None) -> None:
    upload = sent(user, model_files())
    uploads.submit(upload)
    assert not Checkpoint.objects.exists()
    assert not queries.runnable().exists()
    with pytest.raises(UserError, match="is taken in this installation"):
        uploads.begin(user, "model")
    done = worked(upload)
    assert done.state == Upload.State.REGISTERED
    checkpoint = Checkpoint.objects.get()
    assert done.checkpoint == checkpoint
    folder = Path(settings.MEDIA_ROOT) / checkpoint.path
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == model_files()
    assert list(queries.runnable()) == [checkpoint]
    assert not on_disk(upload)
    assert not intake.is_waiting()


def test_a_whole_model_passes_the_child_and_says_what_it_is(user: Any) -> None:
    upload = sent(user, model_files())
    uploads.submit(upload)
    assert worked(upload).reason == ""
    found = Checkpoint.objects.get()
    assert (found.architecture, found.parameters) == ("Qwen2ForCausalLM", 816)
    assert found.content_hash in found.path
    assert found.has_chat_template


def test_a_broker_that_is_away_fails_no_upload(
    user: Any, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The upkeep asks again; what people see is that their upload is being looked at."""

    def away() -> None:
        raise OperationalError("nobody there")

    monkeypatch.setattr("webapp.config.celery.ask_to_take_in", away)
    upload = sent(user, model_files())
    uploads.submit(upload)
    upload.refresh_from_db()
    assert upload.state == Upload.State.CHECKING
    assert intake.is_waiting()
    assert worked(upload).state == Upload.State.REGISTERED


def test_a_second_worker_takes_over_when_the_first_one_died(user: Any, in_process: None) -> None:
    upload = sent(user, model_files())
    uploads.submit(upload)
    dead = intake.claim("host/1")
    assert dead is not None
    assert intake.claim("host/2") is None
    Upload.objects.update(lease_expires_at=timezone.now() - timedelta(seconds=1))
    assert intake.is_waiting()
    assert worked(upload).state == Upload.State.REGISTERED
    assert not intake.renew(dead)
    intake.carry_out(dead)  # revived: it finds that it is no longer its turn
    assert Checkpoint.objects.count() == 1


def test_what_was_found_under_a_lost_lease_does_not_count(
    user: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = sent(user, model_files())
    uploads.submit(upload)

    def slow(folder: Path, **_: Any) -> Any:
        Upload.objects.update(lease_token=None)  # meanwhile the lease ran out
        return verifying.checkpoints.inspect(folder)

    monkeypatch.setattr(intake, "verify_in_child", slow)
    assert worked(upload).state == Upload.State.CHECKING
    assert not Checkpoint.objects.exists()
    assert on_disk(upload)


def test_an_upload_deleted_while_it_is_checked_leaves_nothing(
    user: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = sent(user, model_files())
    uploads.submit(upload)

    def slow(folder: Path, **_: Any) -> Any:
        found = verifying.checkpoints.inspect(folder)
        uploads.delete(Upload.objects.get())
        return found

    monkeypatch.setattr(intake, "verify_in_child", slow)
    job = intake.claim("host/1")
    assert job is not None
    intake.carry_out(job)
    assert not Upload.objects.exists()
    assert not Checkpoint.objects.exists()


def test_a_worker_that_is_told_to_stop_gives_the_upload_back(user: Any) -> None:
    upload = sent(user, model_files())
    uploads.submit(upload)
    job = intake.claim("host/1")
    assert job is not None
    intake.carry_out(job, lambda: False)
    upload.refresh_from_db()
    assert (upload.state, upload.lease_token, upload.attempts) == ("checking", None, 0)


def test_what_kills_workers_is_refused_in_the_end(user: Any, in_process: None) -> None:
    upload = sent(user, model_files())
    uploads.submit(upload)
    for _ in range(settings.RETORT_MAX_FAILURES):
        assert intake.claim("host/1") is not None
        Upload.objects.update(lease_expires_at=timezone.now() - timedelta(seconds=1))
    assert worked(upload).state == Upload.State.REFUSED
    assert "workers died" in upload.reason
    assert not on_disk(upload)


@pytest.mark.parametrize(
    "odd", [{"context_tokens": 2**31}, {"architecture": "a\0"}, {"dtype": "\ud800"}]
)
def test_a_value_that_the_database_does_not_take_is_a_refusal(
    user: Any, monkeypatch: pytest.MonkeyPatch, odd: dict[str, Any]
) -> None:
    """Inspection lets none pass that is known; one that it does not know ends the upload, too."""
    upload = sent(user, model_files())
    uploads.submit(upload)

    def look(folder: Path, **_: Any) -> Any:
        return dataclasses.replace(verifying.checkpoints.inspect(folder), **odd)

    monkeypatch.setattr(intake, "verify_in_child", look)
    done = worked(upload)
    assert done.state == Upload.State.REFUSED
    assert "none that can be kept; save the model again" in done.reason
    assert done.lease_token is None
    assert not on_disk(upload)
    assert not intake.is_waiting()
    assert not Checkpoint.objects.exists()


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"max_position_embeddings": 3_000_000_000}, "must lie between 1 and 2,147,483,647"),
        ({"architectures": ["Qwen2\0ForCausalLM"]}, "names no class"),
    ],
)
def test_a_config_of_values_that_no_column_holds_is_refused(
    user: Any, in_process: None, config: dict[str, Any], why: str
) -> None:
    upload = sent(user, model_files(config=config))
    uploads.submit(upload)
    done = worked(upload)
    assert done.state == Upload.State.REFUSED
    assert why in done.reason


def test_a_full_disk_is_tried_again_and_said_meanwhile(
    user: Any, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.RETORT_RETRY_SECONDS = 0.0
    upload = sent(user, model_files())
    uploads.submit(upload)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(intake, "verify_in_child", full)
    assert worked(upload).state == Upload.State.CHECKING
    assert "No space left" in upload.reason
    assert worked(upload, 2).state == Upload.State.REFUSED
    assert "tried 3 times" in upload.reason


# --- what is hostile, each with its reason


def _header(entries: dict[str, Any], body: int) -> bytes:
    raw = json.dumps(entries).encode()
    return struct.pack("<Q", len(raw)) + raw + bytes(body)


def _without(name: str) -> dict[str, tuple[int, ...]]:
    return {key: shape for key, shape in shapes().items() if key != name}


NORM = "model.norm.weight"
HOSTILE: dict[str, tuple[dict[str, bytes], str]] = {
    "auto_map": (
        {"config.json": json.dumps(CONFIG | {"auto_map": {"AutoModel": "m.M"}}).encode()},
        "auto_map asks for remote code",
    ),
    "auto_map of the tokenizer": (
        {"tokenizer_config.json": b'{"auto_map": {"AutoTokenizer": ["t.T", null]}}'},
        "auto_map asks for remote code",
    ),
    "no vocabulary": ({"tokenizer.json": b'{"model": {}}'}, "holds no vocabulary"),
    "a config that is no object": ({"config.json": b"[1]"}, "must be a JSON object"),
    "a config of a million brackets": ({"config.json": b"[" * 10**6}, "not JSON"),
    "tensors that overlap": (
        {
            "model.safetensors": _header(
                {
                    "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
                    "b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
                },
                4,
            )
        },
        "overlap or leave gaps",
    ),
    "a name twice in a header": (
        {"model.safetensors": struct.pack("<Q", 20) + b'{"a":1,"a":2}       ' + bytes(8)},
        "cannot be read",
    ),
    "weights beside those that are loaded": (
        {"other.safetensors": weights({"x": (1,)})},
        "weights that nothing would load",
    ),
    "an index that lies": (
        {
            "model.safetensors.index.json": json.dumps(
                {"weight_map": {"x": "model.safetensors"}}
            ).encode()
        },
        "puts elsewhere|lacks",
    ),
    "an index that points outside": (
        {
            "model.safetensors.index.json": json.dumps(
                {"weight_map": {"x": "../../secret.safetensors"}}
            ).encode()
        },
        "named by model.safetensors.index.json but missing",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused_with_their_reason(
    user: Any, in_process: None, case: str
) -> None:
    files, why = HOSTILE[case]
    upload = sent(user, model_files() | files)
    uploads.submit(upload)
    done = worked(upload)
    assert done.state == Upload.State.REFUSED
    assert pytest.raises(AssertionError, match=why).matches(AssertionError(done.reason)), (
        done.reason
    )
    assert str(settings.MEDIA_ROOT) not in done.reason
    assert not on_disk(upload)
    assert not Checkpoint.objects.exists()


IN_THE_CHILD: dict[str, tuple[dict[str, Any], str]] = {
    "a tensor is missing": ({"tensors": _without(NORM)}, "lacks 'model.norm.weight'"),
    "a template that never ends": (
        {
            "template": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}"
            "{% endfor %}"
        },
        "does not end within",
    ),
    "a template that eats memory": (
        {"template": "{{ 'x' * 99999999999 }}"},
        "GB of memory to look at",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", IN_THE_CHILD)
def test_what_only_loading_shows_is_refused_by_the_child(user: Any, case: str) -> None:
    changes, why = IN_THE_CHILD[case]
    upload = sent(user, model_files(**changes))
    uploads.submit(upload)
    done = worked(upload)
    assert done.state == Upload.State.REFUSED
    assert why in done.reason
    assert not Checkpoint.objects.exists()


def test_a_tokenizer_of_a_gigabyte_is_refused_unread(
    user: Any, in_process: None, tmp_path: Path
) -> None:
    upload = sent(user, model_files())
    file = upload.files.get(path="tokenizer.json")
    with uploads.place_of(file).open("r+b") as sparse:
        sparse.truncate(1 << 30)
    upload.files.filter(pk=file.pk).update(length_bytes=1 << 30, offset_bytes=1 << 30)
    uploads.submit(upload)
    assert "tokenizer.json: larger than 100 MB" in worked(upload).reason


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["model.safetensors", "MODEL.SAFETENSORS"], "came already"),
        (["sub/a.json", "SUB"], "no file of this kind"),
        (["a.json/b.json", "A.JSON"], "cannot both be there"),
        (["a.json", "a.json/b.json"], "cannot both be there"),
        (["con\u0000fig.json"], "not accepted"),
        (["con\u202efig.json"], "not accepted"),
        (["c\u043enfig.json"], "not accepted"),  # a Cyrillic o
        (["\uff0e\uff0e/config.json"], "not accepted"),  # full-width dots
        (["caf\u0065\u0301.json"], "not accepted"),
        (["..\\config.json"], "not accepted"),
        (["C:\\config.json"], "not accepted"),
        (["./config.json/.."], "not accepted"),
        ([".hidden.json"], "not accepted"),
        (["a/b/c/d.json"], "not accepted"),
        (["x" * 201 + ".json"], "not accepted"),
        (["weights.pkl"], "pickled"),
        (["weights.PT"], "pickled"),
        (["model.safetensors.bin"], "pickled"),
        (["modeling_x.py"], "no code"),
        (["lib.so"], "no code"),
        (["archive.zip"], "no file of this kind"),
    ],
)
def test_names_that_play_tricks(user: Any, names: list[str], why: str) -> None:
    upload = uploads.begin(user, "model")
    *good, bad = names
    for name in good:
        uploads.declare(upload, name, 1)
    with pytest.raises(UserError, match=why):
        uploads.declare(upload, bad, 2)
    assert upload.files.count() == len(good)


def test_a_header_of_gigabytes_is_refused_before_it_is_read(user: Any) -> None:
    files = model_files() | {"model.safetensors": struct.pack("<Q", 1 << 40) + bytes(100)}
    upload = sent(user, files)
    with pytest.raises(UserError, match="does not fit the file"):
        uploads.submit(upload)


def test_the_child_knows_no_secret_and_ends_with_its_parents_wish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgres://secret")
    told: dict[str, Any] = {}
    popen = verifying.subprocess.Popen

    def noted(*args: Any, **kwargs: Any) -> Any:
        told.update(kwargs["env"])
        return popen(*args, **kwargs)

    monkeypatch.setattr(verifying.subprocess, "Popen", noted)
    asked: list[int] = []

    def wanted() -> bool:
        asked.append(1)
        return len(asked) < 2

    with pytest.raises(verifying.AbandonedError):
        verifying.verify_in_child(tmp_path, wanted=wanted)
    assert not {name for name in told if "SECRET" in name or "URL" in name or "KEY" in name}


# --- the pages


def test_the_uploads_page_follows_it_to_its_end(user: Any, page: Client, in_process: None) -> None:
    upload = sent(user, model_files())
    uploads.submit(upload)
    live = reverse("checkpoints:upload-live", args=[upload.pk])
    assert "waits for a worker" in page.get(upload.get_absolute_url()).content.decode()
    assert "HX-Redirect" not in page.get(live)
    worked(upload)
    checkpoint = Checkpoint.objects.get()
    assert page.get(live)["HX-Redirect"] == checkpoint.get_absolute_url()
    assert page.get(upload.get_absolute_url())["Location"] == checkpoint.get_absolute_url()


def test_a_refusal_stands_on_the_uploads_page(
    user: Any, page: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path, **_: Any) -> None:
        raise CheckpointError(f"{folder.name}: lacks <b>'x'</b>")

    monkeypatch.setattr(intake, "verify_in_child", refuse)
    upload = sent(user, model_files())
    uploads.submit(upload)
    worked(upload)
    live = page.get(reverse("checkpoints:upload-live", args=[upload.pk]))
    assert live["HX-Redirect"] == upload.get_absolute_url()
    text = page.get(upload.get_absolute_url()).content.decode()
    assert "folder: lacks &lt;b&gt;" in text


def test_the_plain_form_goes_the_same_way(user: Any, page: Client, in_process: None) -> None:
    from django.core.files.uploadedfile import SimpleUploadedFile

    files = [SimpleUploadedFile(name, data) for name, data in model_files().items()]
    answer = page.post(reverse("checkpoints:upload"), {"name": "plain", "files": files})
    upload = Upload.objects.get()
    assert answer["Location"] == upload.get_absolute_url()
    assert upload.state == Upload.State.CHECKING
    assert worked(upload).state == Upload.State.REGISTERED


def test_the_quota_is_shown(user: Any, page: Client, settings: Any) -> None:
    settings.RETORT_UPLOAD_QUOTA_BYTES = 10 * 1024**2
    sent(user, {"config.json": bytes(1024**2)})
    text = page.get(reverse("checkpoints:upload")).content.decode().replace("\xa0", " ")
    assert "1.0 MB of your 10.0 MB are used" in text

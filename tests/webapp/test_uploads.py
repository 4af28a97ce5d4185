"""Uploads in pieces: what is here counts exactly once, nothing half-taken, nobody else's."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.http import UnreadablePostError
from django.test import Client
from django.urls import reverse
from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from hypothesis import strategies as st
from tusclient.client import TusClient

from tests.webapp.models import model_files
from webapp.checkpoints import uploads
from webapp.checkpoints.models import Upload, UploadFile
from webapp.core.errors import UserError

pytestmark = pytest.mark.django_db

TUS = {"Tus-Resumable": "1.0.0"}
PIECE = "application/offset+octet-stream"


class Breaking:
    """A connection that breaks after its bytes."""

    def __init__(self, data: bytes) -> None:
        self._rest = io.BytesIO(data)

    def read(self, size: int, /) -> bytes:
        block = self._rest.read(size)
        if not block:
            raise UnreadablePostError("the connection broke")
        return block


def sent(upload: Upload, name: str, data: bytes) -> UploadFile:
    file = uploads.declare(upload, name, len(data))
    uploads.append(file, 0, io.BytesIO(data))
    return file


def left_on_disk(upload: Upload) -> bool:
    return (Path(settings.MEDIA_ROOT) / "uploads" / upload.pk.hex).exists()


def place(file: UploadFile) -> Path:
    return Path(settings.MEDIA_ROOT) / "uploads" / file.upload_id.hex / file.pk.hex


@pytest.fixture
def upload(user: Any) -> Upload:
    return uploads.begin(user, "model")


@pytest.fixture
def file(upload: Upload) -> UploadFile:
    return uploads.declare(upload, "model.safetensors", 10)


# --- pieces


@effort(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(data=st.binary(min_size=1, max_size=300), lots=st.data())
def test_pieces_that_break_off_anywhere_make_the_same_file(
    user: Any, data: bytes, lots: st.DataObject
) -> None:
    """However pieces are cut, break off, overlap or lie about their hash."""
    one = uploads.declare(uploads.begin(user, f"m{Upload.objects.count()}"), "a.json", len(data))
    here = 0
    for _ in range(500):
        if here == len(data):
            break
        end = lots.draw(st.integers(here + 1, len(data)))
        piece = data[here:end]
        fault = lots.draw(st.sampled_from(["none", "breaks", "breaks, hashed", "lies", "gap"]))
        right = ("sha256", hashlib.sha256(piece).digest())
        if fault == "none":
            here = uploads.append(one, here, io.BytesIO(piece), right)
            assert here == end
        elif fault == "breaks":
            come = lots.draw(st.integers(0, len(piece)))
            here = uploads.append(one, here, Breaking(piece[:come]))
        elif fault == "breaks, hashed":
            with pytest.raises(uploads.ChecksumError):
                uploads.append(one, here, Breaking(piece), right)
        elif fault == "lies":
            with pytest.raises(uploads.ChecksumError):
                uploads.append(one, here, io.BytesIO(piece), ("sha1", bytes(20)))
        else:
            with pytest.raises(uploads.OffsetError):
                uploads.append(one, here + 1, io.BytesIO(piece))
        one.refresh_from_db()
        assert one.offset_bytes == here
    assert place(one).read_bytes()[:here] == data[:here]


def test_bytes_that_a_dying_server_left_behind_do_not_count(file: UploadFile) -> None:
    uploads.append(file, 0, io.BytesIO(b"abc"))
    with place(file).open("ab") as torn:
        torn.write(b"written, but the row was never updated")
    uploads.append(file, 3, io.BytesIO(b"defghij"))
    assert place(file).read_bytes() == b"abcdefghij"


def test_two_requests_never_write_to_one_file(file: UploadFile) -> None:
    class Meanwhile(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            with pytest.raises(uploads.BusyError):
                uploads.append(file, 0, io.BytesIO(b"x"))
            return super().read(size)

    assert uploads.append(file, 0, Meanwhile(b"abc")) == 3


def test_a_piece_past_the_files_end_is_refused_and_changes_nothing(file: UploadFile) -> None:
    with pytest.raises(UserError, match="longer than was declared"):
        uploads.append(file, 0, io.BytesIO(bytes(11)))
    file.refresh_from_db()
    assert file.offset_bytes == 0


# --- what is refused before it is sent


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("pytorch_model.bin", "pickled"),
        ("modeling.py", "no code"),
        ("../config.json", "not accepted"),
        ("/etc/config.json", "not accepted"),
        ("a\\..\\b.json", "not accepted"),
        ("a.exe", "no code"),
        ("film.mp4", "no file of this kind"),
        ("", "not accepted"),
        ("MODEL.safetensors", "came already"),
    ],
)
def test_names_that_a_checkpoint_must_not_have(
    upload: Upload, file: UploadFile, name: str, why: str
) -> None:
    with pytest.raises(UserError, match=why):
        uploads.declare(upload, name, 10)
    assert upload.files.count() == 1


def test_an_upload_of_a_wrong_file_is_not_begun_at_all(user: Any) -> None:
    with pytest.raises(UserError, match="pickled"):
        uploads.begin(user, "model", [("config.json", 2), ("pytorch_model.bin", 5)])
    assert not Upload.objects.exists()
    assert not UploadFile.objects.exists()


def test_the_quota_counts_what_is_declared(user: Any, settings: Any) -> None:
    settings.RETORT_UPLOAD_QUOTA_BYTES = 100
    upload = uploads.begin(user, "model", [("config.json", 60), ("model.safetensors", 0)])
    with pytest.raises(UserError, match="your quota is 100 bytes, 60 are used"):
        uploads.declare(upload, "a.safetensors", 41)
    uploads.declare(upload, "a.safetensors", 40)


def test_more_than_the_disk_takes_is_refused(upload: Upload) -> None:
    with pytest.raises(UserError, match="the server's disk"):
        uploads.declare(upload, "model.safetensors", 1 << 49)


# --- the end of an upload


def test_an_incomplete_upload_goes_on_receiving(upload: Upload, file: UploadFile) -> None:
    uploads.append(file, 0, io.BytesIO(b"abc"))
    with pytest.raises(UserError, match=r"model\.safetensors is not here whole \(3 of 10 bytes\)"):
        uploads.submit(upload)
    assert uploads.append(file, 3, io.BytesIO(b"d")) == 4


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("state", [Upload.State.CHECKING, Upload.State.REGISTERED])
def test_whoever_lost_the_answer_may_finish_again(page: Client, user: Any, state: str) -> None:
    upload = uploads.begin(user, "model")
    for name, data in model_files().items():
        sent(upload, name, data)
    address = reverse("checkpoints:finish", args=[upload.pk])
    first = page.post(address)
    if state == Upload.State.REGISTERED:
        uploads.close(upload, Upload.State.REGISTERED)
    second = page.post(address)
    assert (second.status_code, second.json()) == (first.status_code, first.json())
    upload.refresh_from_db()
    assert upload.state == state


@pytest.mark.django_db(transaction=True)
def test_an_answer_tells_what_is_refused_from_what_goes_on(page: Client, user: Any) -> None:
    upload = uploads.begin(user, "model")
    for name, data in (model_files() | {"model.safetensors": b"torn"}).items():
        uploads.declare(upload, name, len(data))
    address = reverse("checkpoints:finish", args=[upload.pk])
    missing = page.post(address)
    assert (missing.status_code, missing.json()["refused"]) == (400, False)
    for name, data in (model_files() | {"model.safetensors": b"torn"}).items():
        sent(upload, name, data)
    for _ in range(2):  # the second time its bytes are gone
        torn = page.post(address)
        assert (torn.status_code, torn.json()["refused"]) == (400, True)


@pytest.mark.django_db(transaction=True)
def test_what_is_torn_at_first_sight_is_refused_at_once(user: Any) -> None:
    upload = uploads.begin(user, "model")
    for name, data in (model_files() | {"model.safetensors": b"torn"}).items():
        sent(upload, name, data)
    with pytest.raises(UserError, match="torn"):
        uploads.submit(upload)
    upload.refresh_from_db()
    assert upload.state == Upload.State.REFUSED
    assert "torn" in upload.reason
    assert not left_on_disk(upload)
    with pytest.raises(UserError, match="takes no more files"):
        uploads.declare(upload, "b.json", 1)


@pytest.mark.django_db(transaction=True)
def test_a_deleted_upload_leaves_nothing(upload: Upload, file: UploadFile) -> None:
    uploads.append(file, 0, io.BytesIO(b"abc"))
    key = upload.pk
    uploads.delete(upload)
    assert not left_on_disk(Upload(pk=key))
    assert not UploadFile.objects.exists()


# --- the protocol (https://tus.io/protocols/resumable-upload, 1.0.0)


@pytest.fixture
def address(file: UploadFile) -> str:
    return reverse("checkpoints:tus-file", args=[file.upload_id, file.pk])


def patch(page: Client, address: str, data: bytes, offset: int, **headers: str) -> Any:
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    named = TUS | {"Upload-Offset": str(offset)} | more
    return page.patch(address, data, content_type=PIECE, headers=named)


def test_what_is_spoken_is_said_without_a_version(page: Client, address: str) -> None:
    answer = page.options(address)
    assert answer.status_code == 204
    assert answer["Tus-Version"] == "1.0.0"
    assert set(answer["Tus-Extension"].split(",")) == {"creation", "checksum", "termination"}
    assert "sha1" in answer["Tus-Checksum-Algorithm"].split(",")


def test_another_version_is_refused_before_anything_happens(page: Client, address: str) -> None:
    answer = page.patch(
        address, b"abc", content_type=PIECE,
        headers={"Tus-Resumable": "0.2.2", "Upload-Offset": "0"},
    )  # fmt: skip
    assert answer.status_code == 412
    assert answer["Tus-Version"] == "1.0.0"
    assert UploadFile.objects.get().offset_bytes == 0


def test_creation_tells_where_and_is_the_same_twice(page: Client, upload: Upload) -> None:
    address = reverse("checkpoints:tus-files", args=[upload.pk])
    metadata = "path " + base64.b64encode(b"config.json").decode() + ",is_best"
    headers = TUS | {"Upload-Length": "5", "Upload-Metadata": metadata}
    first, second = page.post(address, headers=headers), page.post(address, headers=headers)
    assert (first.status_code, second.status_code) == (201, 201)
    assert first["Location"] == second["Location"]
    head = page.head(first["Location"], headers=TUS)
    assert (head["Upload-Offset"], head["Upload-Length"]) == ("0", "5")
    assert head["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "headers",
    [
        {}, {"Upload-Length": "-1"}, {"Upload-Length": "1e3"}, {"Upload-Defer-Length": "1"},
        {"Upload-Length": "5", "Upload-Metadata": "path %%%"},
        {"Upload-Length": "5", "Upload-Metadata": "path " + base64.b64encode(b"\xff").decode()},
        {"Upload-Length": "5"},
    ],
)  # fmt: skip
def test_bad_creations_are_refused(page: Client, upload: Upload, headers: dict[str, str]) -> None:
    address = reverse("checkpoints:tus-files", args=[upload.pk])
    assert page.post(address, headers=TUS | headers).status_code == 400
    assert not UploadFile.objects.exists()


def test_statuses_of_a_piece(page: Client, file: UploadFile, address: str) -> None:
    assert patch(page, address, b"abc", 1).status_code == 409
    plain = page.patch(address, b"abc", content_type="text/plain", headers=TUS)
    assert plain.status_code == 415
    wrong = base64.b64encode(bytes(20)).decode()
    assert patch(page, address, b"abc", 0, Upload_Checksum=f"sha1 {wrong}").status_code == 460
    assert patch(page, address, b"abc", 0, Upload_Checksum=f"md5 {wrong}").status_code == 400
    right = base64.b64encode(hashlib.sha256(b"abc").digest()).decode()
    good = patch(page, address, b"abc", 0, Upload_Checksum=f"sha256 {right}")
    assert (good.status_code, good["Upload-Offset"]) == (204, "3")
    assert page.delete(address, headers=TUS).status_code == 204
    assert page.head(address, headers=TUS).status_code == 404
    assert not place(file).exists()


def test_nobody_elses_upload_is_seen_or_touched(
    django_user_model: Any, file: UploadFile, address: str
) -> None:
    stranger = Client()
    stranger.force_login(django_user_model.objects.create_user("stranger"))
    assert stranger.head(address, headers=TUS).status_code == 404
    assert patch(stranger, address, b"abc", 0).status_code == 404
    assert stranger.delete(address, headers=TUS).status_code == 404
    for name in ("resume", "finish", "discard", "tus-files"):
        url = reverse(f"checkpoints:{name}", args=[file.upload_id])
        method: Callable[..., Any] = stranger.get if name == "resume" else stranger.post
        assert method(url, headers=TUS).status_code == 404
    assert UploadFile.objects.get().offset_bytes == 0


def test_csrf_is_asked_of_every_piece(user: Any, address: str) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(user)
    assert patch(client, address, b"abc", 0).status_code == 403


@pytest.mark.django_db(transaction=True)
def test_an_independent_client_resumes(user: Any, live_server: Any, tmp_path: Path) -> None:
    """tuspy sends half, forgets everything but the address, and another one sends the rest."""
    data = bytes(range(256)) * 4000
    source = tmp_path / "model.safetensors"
    source.write_bytes(data)
    upload = uploads.begin(user, "model")
    page = Client()
    page.force_login(user)
    page.get(reverse("checkpoints:upload"))
    cookies = "; ".join(f"{key}={morsel.value}" for key, morsel in page.cookies.items())
    token = page.cookies["csrftoken"].value
    headers = {"Cookie": cookies, "X-CSRFToken": token}
    endpoint = live_server.url + reverse("checkpoints:tus-files", args=[upload.pk])
    client = TusClient(endpoint, headers=headers)
    with source.open("rb") as stream:
        how: dict[str, Any] = {
            "file_stream": stream, "chunk_size": 100_000, "metadata": {"path": source.name},
            "upload_checksum": True,
        }  # fmt: skip
        first = client.uploader(**how)
        first.upload(stop_at=500_000)
        second = client.uploader(**how, url=first.url)
        assert second.offset == 500_000
        second.upload()
    file = UploadFile.objects.get()
    assert file.complete
    assert place(file).read_bytes() == data

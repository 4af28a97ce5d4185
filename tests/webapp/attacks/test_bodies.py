"""Bodies that are too large, too deep or of too many parts: one sentence, and nothing is kept."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.conf import settings
from django.test import Client

from webapp.api import tokens
from webapp.api.models import Scope
from webapp.checkpoints import uploads
from webapp.checkpoints.models import Upload, UploadFile
from webapp.runs.models import Run

pytestmark = pytest.mark.django_db
LIMIT = settings.DATA_UPLOAD_MAX_MEMORY_SIZE


@pytest.fixture
def api(user: Any) -> Client:
    """A client that sends a token which may write."""
    _, secret = tokens.make(user, name="a program's", scope=Scope.WRITE)
    return Client(headers={"Authorization": f"Bearer {secret}"}, raise_request_exception=False)


@pytest.fixture
def page(user: Any) -> Client:
    client = Client(raise_request_exception=False)
    client.force_login(user)
    return client


def nested(depth: int, *, objects: bool = False) -> str:
    opened, closed = ('{"a":', "}") if objects else ("[", "]")
    return opened * depth + "1" + closed * depth


OPERATIONS = ("runs/distil", "runs/check", "runs/evaluate", "endpoints", "uploads")


@pytest.mark.parametrize("path", OPERATIONS)
def test_json_beyond_the_limit_is_refused_in_a_sentence(api: Client, path: str) -> None:
    body = json.dumps({"name": "x" * LIMIT})
    answer = api.post(f"/api/v1/{path}", body, content_type="application/json")
    assert answer.status_code == 413, answer.content
    assert answer.json() == {
        "field": "body",
        "sentence": "body: is larger than is taken here.",
    }


@pytest.mark.parametrize("objects", [False, True])
@pytest.mark.parametrize("depth", [60, 200, 320, 480, 700, 900, 960, 985, 1200, 200_000])
def test_json_of_any_depth_is_refused_in_a_sentence(
    api: Client, page: Client, depth: int, objects: bool
) -> None:
    deep = nested(depth, objects=objects)
    bodies = {
        "runs/distil": '{"recipe":' + deep + "}",
        "runs/check": '{"recipe":{"training":' + deep + "}}",
        "runs/evaluate": deep,
        "uploads": '{"name":"m","files":' + deep + "}",
    }
    for path, body in bodies.items():
        answer = api.post(f"/api/v1/{path}", body, content_type="application/json")
        assert answer.status_code == 422, (path, answer.content[:300])
        assert answer.json()["sentence"]
        assert len(answer.content) < 2000
    yaml = api.post(
        "/api/v1/runs/check", json.dumps({"yaml": deep[:190_000]}), content_type="application/json"
    )
    assert yaml.status_code == 422, yaml.content[:300]
    form = page.post("/runs/distil/", {"yaml": deep[:190_000]})
    assert form.status_code == 400
    assert not Run.objects.exists()


def multipart(parts: int, *, files: bool) -> tuple[bytes, str]:
    head = b'--b\r\nContent-Disposition: form-data; name="f%d"%s\r\n\r\nx\r\n'
    name = b'; filename="a"' if files else b""
    return b"".join(head % (i, name) for i in range(parts)) + b"--b--\r\n", (
        "multipart/form-data; boundary=b"
    )


@pytest.mark.parametrize("files", [True, False])
def test_forms_of_thousands_of_parts_are_refused(api: Client, page: Client, files: bool) -> None:
    body, kind = multipart(5000, files=files)
    assert page.post("/runs/import/", body, content_type=kind).status_code == 400
    answer = api.post("/api/v1/runs/import", body, content_type=kind)
    assert answer.status_code in (413, 422), answer.content
    assert answer.json()["sentence"]
    assert not Run.objects.exists()


@pytest.fixture
def file(user: Any) -> UploadFile:
    """A file of an upload, of which 10 bytes are to come."""
    return uploads.declare(uploads.begin(user, "model"), "config.json", 10)


def patch(client: Client, file: UploadFile, piece: bytes, **more: Any) -> Any:
    return client.patch(
        f"/checkpoints/uploads/{file.upload_id}/files/{file.pk}/", piece,
        content_type="application/offset+octet-stream",
        headers={"Tus-Resumable": "1.0.0", "Upload-Offset": "0"}, **more,
    )  # fmt: skip


@pytest.mark.parametrize("size", [11, 3_000_000])
def test_a_piece_beyond_the_declared_length_is_refused_and_not_kept(
    page: Client, file: UploadFile, size: int
) -> None:
    answer = patch(page, file, b"x" * size)
    assert answer.status_code == 400, answer.content
    assert b"longer than was declared" in answer.content
    file.refresh_from_db()
    assert file.offset_bytes == 0
    assert uploads.place_of(file).stat().st_size <= file.length_bytes
    assert patch(page, file, b"x" * 10).status_code == 204


def test_a_length_beyond_any_and_one_beyond_the_quota_are_refused(
    page: Client, user: Any, settings: Any
) -> None:
    settings.RETORT_UPLOAD_QUOTA_BYTES = 1000
    upload = uploads.begin(user, "model")
    for length, statuses in ((1 << 51, {413}), (10**17, {413}), (1001, {400}), (10**30, {400})):
        answer = page.post(
            f"/checkpoints/uploads/{upload.pk}/files/",
            headers={
                "Tus-Resumable": "1.0.0", "Upload-Length": str(length),
                "Upload-Metadata": "path Y29uZmlnLmpzb24=",
            },
        )  # fmt: skip
        assert answer.status_code in statuses, (length, answer.content)
        assert answer.content
    assert not UploadFile.objects.exists()
    assert Upload.objects.count() == 1


@pytest.mark.parametrize("path", ["/runs/distil/", "/api/v1/runs/distil", "piece"])
def test_a_body_of_unknown_length_is_refused_unread(
    api: Client, page: Client, file: UploadFile, path: str
) -> None:
    class Endless(io.RawIOBase):
        """Nobody may read it."""

        def read(self, size: int = -1) -> bytes:
            raise AssertionError("it was read")

    more = {"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": "", "wsgi.input": Endless()}
    client = api if path.startswith("/api") else page
    if path == "piece":
        answer = patch(client, file, b"", **more)
    else:
        answer = client.post(path, b"", content_type="application/json", **more)
    assert answer.status_code == 411
    assert b"Content-Length" in answer.content

"""The tus resumable upload protocol, version 1.0.0, server side (https://tus.io/protocols).

Core, and the extensions creation, checksum and termination. A file is created below its upload
(``POST``, metadata ``path``), sent in pieces (``PATCH``), asked after (``HEAD``), taken back
(``DELETE``). Refusals carry one sentence as plain text.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable
from functools import wraps

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_http_methods

from webapp.checkpoints import uploads
from webapp.checkpoints.models import UploadFile
from webapp.checkpoints.queries import own_uploads
from webapp.core.errors import UserError
from webapp.core.users import signed_in

VERSION = "1.0.0"
_PIECE_TYPE = "application/offset+octet-stream"
_CHECKSUM_MISMATCH = 460  # the protocol's own status
_MOST_BYTES = 1 << 50


class RefusalError(Exception):
    """A status of the protocol and one sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


def _speaks_tus(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """``OPTIONS`` and the version are the same for every resource; refusals become answers."""

    @wraps(view)
    def wrapped(request: HttpRequest, *args: object, **kwargs: object) -> HttpResponse:
        if request.method == "OPTIONS":
            return _abilities()
        if request.headers.get("Tus-Resumable") != VERSION:
            response = _answer(412, f"Tus-Resumable must be {VERSION}.")
            response["Tus-Version"] = VERSION
            return response
        try:
            return view(request, *args, **kwargs)
        except RefusalError as refusal:
            return _answer(refusal.status, refusal.sentence)
        except UserError as error:
            return _answer(400, error.sentence)

    return wrapped


@require_http_methods(["OPTIONS", "POST"])
@_speaks_tus
def files(request: HttpRequest, upload: uuid.UUID) -> HttpResponse:
    """Create a file of an upload (extension creation); asked again, answer with the same one."""
    row = get_object_or_404(own_uploads(signed_in(request)), pk=upload)
    length = _number(request, "Upload-Length")
    if length > _MOST_BYTES:
        raise RefusalError(413, "Upload-Length is larger than any file here may be.")
    path = _metadata(request.headers.get("Upload-Metadata", "")).get("path", "")
    file = uploads.declare(row, path, length)
    response = _answer(201)
    # Below this very address: it is the page's, or the API's, which takes tokens.
    response["Location"] = request.build_absolute_uri(f"{request.path}{file.pk}/")
    response["Upload-Offset"] = str(file.offset_bytes)
    return response


@require_http_methods(["OPTIONS", "HEAD", "PATCH", "DELETE"])
@_speaks_tus
def one_file(request: HttpRequest, upload: uuid.UUID, pk: uuid.UUID) -> HttpResponse:
    """Say how much of a file is here, take its next piece, or take it back."""
    file = get_object_or_404(
        UploadFile.objects.select_related("upload"),
        pk=pk, upload=upload, upload__in=own_uploads(signed_in(request)),
    )  # fmt: skip
    if request.method == "HEAD":
        return _whereabouts(file)
    if request.method == "DELETE":
        uploads.remove_file(file)
        return _answer(204)
    return _take_piece(request, file)


def _take_piece(request: HttpRequest, file: UploadFile) -> HttpResponse:
    if request.content_type != _PIECE_TYPE:
        raise RefusalError(415, f"Content-Type must be {_PIECE_TYPE}.")
    offset = _number(request, "Upload-Offset")
    checksum = _checksum(request.headers.get("Upload-Checksum"))
    try:
        end = uploads.append(file, offset, request, checksum)
    except uploads.OffsetError as error:
        raise RefusalError(409, str(error)) from error
    except uploads.BusyError as error:
        raise RefusalError(423, str(error)) from error
    except uploads.ChecksumError as error:
        raise RefusalError(_CHECKSUM_MISMATCH, str(error)) from error
    response = _answer(204)
    response["Upload-Offset"] = str(end)
    return response


def _whereabouts(file: UploadFile) -> HttpResponse:
    response = _answer(200)
    response["Upload-Offset"] = str(file.offset_bytes)
    response["Upload-Length"] = str(file.length_bytes)
    response["Upload-Metadata"] = "path " + base64.b64encode(file.path.encode()).decode()
    response["Cache-Control"] = "no-store"
    return response


def _abilities() -> HttpResponse:
    response = _answer(204)
    response["Tus-Version"] = VERSION
    response["Tus-Extension"] = "creation,checksum,termination"
    response["Tus-Checksum-Algorithm"] = ",".join(uploads.CHECKSUMS)
    response["Tus-Max-Size"] = str(_MOST_BYTES)
    return response


def _answer(status: int, sentence: str = "") -> HttpResponse:
    response = HttpResponse(sentence, status=status, content_type="text/plain; charset=utf-8")
    if status == _CHECKSUM_MISMATCH:
        response.reason_phrase = "Checksum Mismatch"
    response["Tus-Resumable"] = VERSION
    return response


def _number(request: HttpRequest, header: str) -> int:
    text = request.headers.get(header, "")
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise RefusalError(
            400, f"{header} must be a number of bytes; deferred lengths are not taken."
        )
    return int(text)


def _metadata(text: str) -> dict[str, str]:
    """``key base64value, key base64value``; a key may stand alone."""
    pairs = {}
    try:
        for item in text.split(","):
            key, _, value = item.strip().partition(" ")
            pairs[key] = base64.b64decode(value, validate=True).decode("utf-8")
    except ValueError:
        raise RefusalError(
            400, "Upload-Metadata must be pairs of a key and a base64 value."
        ) from None
    return pairs


def _checksum(header: str | None) -> tuple[str, bytes] | None:
    if header is None:
        return None
    algorithm, _, digest = header.partition(" ")
    if algorithm not in uploads.CHECKSUMS:
        raise RefusalError(400, f"Upload-Checksum must be one of {', '.join(uploads.CHECKSUMS)}.")
    try:
        return algorithm, base64.b64decode(digest, validate=True)
    except ValueError:
        raise RefusalError(
            400, "Upload-Checksum must be an algorithm and a base64 digest."
        ) from None

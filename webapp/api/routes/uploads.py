"""Bringing checkpoints in: files in pieces (tus), from the hub, from a folder of the server.

The files themselves go to addresses of the tus protocol (``webapp/checkpoints/tus.py``), which take
the same tokens; the answer of ``uploads_begin`` names them.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Annotated, Any

from annotated_types import Ge, Le
from django.db import transaction
from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from django.urls import reverse
from pydantic import Field

from webapp.api.auth import ADMIN, WRITE, require_staff
from webapp.api.framework import Router, Schema
from webapp.api.places import place
from webapp.api.schemas import In, Key, Name, Named, Text, one_of
from webapp.checkpoints import intake, queries, uploads
from webapp.checkpoints.models import Upload
from webapp.core import audit
from webapp.core.users import signed_in

router = Router(tags=["uploads"])
MOST_LISTED = 200


class FileOut(Schema):
    """A file of an upload: where its pieces go, and how much of it is here."""

    path: str
    length_bytes: int
    offset_bytes: int
    url: str = Field(description="Of the tus protocol, version 1.0.0: HEAD and PATCH.")


class UploadOut(Schema):
    """An upload: how it stands, and what became of it."""

    id: uuid.UUID
    name: str
    project: Named
    source: one_of(Upload.Source.values)  # type: ignore[valid-type]
    state: one_of(Upload.State.values)  # type: ignore[valid-type]
    reason: str = Field(description="Why it was refused, or what is tried again.")
    left_out: str = Field(description="Names of files that were not taken.")
    checkpoint: int | None = Field(description="What it became.")
    created_at: datetime


class UploadDetail(UploadOut):
    """An upload with its files."""

    files: list[FileOut]


class FileIn(In):
    """A file that will come."""

    path: Annotated[str, Field(max_length=620)]
    length_bytes: Annotated[int, Ge(0), Le(1 << 50)]


class UploadIn(In):
    """A checkpoint's name and its files."""

    name: Name
    files: Annotated[list[FileIn], Field(min_length=1, max_length=5000)]
    project: Key | None = None


class HubIn(In):
    """A model on the hub."""

    repository: Name = Field(description="OWNER/NAME")
    revision: Name = Field("", description="Branch, tag or commit; blank: main.")
    name: Name = Field("", description="What it is called here; blank: as on the hub.")
    project: Key | None = None


class FolderIn(In):
    """A folder of the server, below RETORT_IMPORT_ROOT."""

    folder: Annotated[Text, Field(max_length=500)]
    name: Name
    project: Key | None = None


def _out(row: Upload) -> dict[str, Any]:
    names = ("id", "name", "project", "source", "state", "reason", "left_out", "created_at")
    return {name: getattr(row, name) for name in names} | {"checkpoint": row.checkpoint_id}


def _detail(row: Upload) -> dict[str, Any]:
    return _out(row) | {
        "files": [
            {
                "path": file.path, "length_bytes": file.length_bytes,
                "offset_bytes": file.offset_bytes,
                "url": reverse("api:tus-file", args=[row.pk, file.pk]),
            }
            for file in row.files.all()
        ]
    }  # fmt: skip


def _begun(request: HttpRequest, row: Upload) -> dict[str, Any]:
    audit.record(signed_in(request), "upload.begin", row, source=row.source)
    return _detail(row)


@router.get("", response=list[UploadOut])
def uploads_list(request: HttpRequest) -> list[dict[str, Any]]:
    """Uploads that are not through, and that one decides about."""
    rows = queries.unfinished_uploads(signed_in(request)).select_related("project")
    return [_out(row) for row in rows[:MOST_LISTED]]


@router.get("/{uuid:pk}", response=UploadDetail)
def uploads_one(request: HttpRequest, pk: uuid.UUID) -> dict[str, Any]:
    """How an upload stands."""
    return _detail(get_object_or_404(queries.uploads(signed_in(request)), pk=pk))


@router.post("", response={201: UploadDetail}, auth=WRITE)
def uploads_begin(request: HttpRequest, body: UploadIn) -> Any:
    """Begin an upload; send each file's pieces to its address then, and finish."""
    person = signed_in(request)
    with transaction.atomic():
        files = [(each.path, each.length_bytes) for each in body.files]
        return _begun(request, uploads.begin(person, body.name, files, place(person, body.project)))


@router.post("/hub", response={201: UploadDetail}, auth=WRITE)
def uploads_hub(request: HttpRequest, body: HubIn) -> Any:
    """Have a worker fetch a model from the hub."""
    person = signed_in(request)
    with transaction.atomic():
        row = intake.begin_from_hub(
            person, body.name or body.repository.strip(), body.repository, body.revision,
            place(person, body.project),
        )  # fmt: skip
        return _begun(request, row)


@router.post("/folder", response={201: UploadDetail}, auth=ADMIN)
def uploads_folder(request: HttpRequest, body: FolderIn) -> Any:
    """Have a worker copy a folder of the server."""
    person = require_staff(request)
    with transaction.atomic():
        row = intake.begin_from_folder(person, body.name, body.folder, place(person, body.project))
        return _begun(request, row)


@router.post("/{uuid:pk}/finish", response=UploadOut, auth=WRITE)
def uploads_finish(request: HttpRequest, pk: uuid.UUID) -> dict[str, Any]:
    """All its files are here: a worker verifies it now."""
    row = get_object_or_404(queries.own_uploads(signed_in(request)), pk=pk)
    uploads.submit(row)
    row.refresh_from_db()
    return _out(row)


@router.delete("/{uuid:pk}", response={204: None}, auth=WRITE)
def uploads_discard(request: HttpRequest, pk: uuid.UUID) -> None:
    """Forget an upload and what came of it; a checkpoint that it became stays."""
    person = signed_in(request)
    row = get_object_or_404(queries.uploads(person), pk=pk)
    with transaction.atomic():
        audit.record(person, "upload.discard", row)
        uploads.delete(Upload.objects.get(pk=row.pk))

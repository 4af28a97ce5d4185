"""Checkpoints: list, look, edit, archive, delete, download."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal

from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404
from pydantic import Field

from webapp.api.auth import WRITE
from webapp.api.forms import cleaned
from webapp.api.framework import Query, Router, Schema
from webapp.api.paging import Page, Paged, page
from webapp.api.schemas import Done, In, Key, Name, Named, Text
from webapp.checkpoints import cards, details
from webapp.checkpoints.forms import DetailsForm
from webapp.checkpoints.models import Checkpoint
from webapp.checkpoints.moving import places_to_move
from webapp.core import audit
from webapp.core.errors import UserError
from webapp.core.users import signed_in
from webapp.housekeeping import removal
from webapp.projects.access import may_manage, seen_by, seen_projects

router = Router(tags=["checkpoints"])


class CheckpointOut(Schema):
    """A set of weights; or a model known by an endpoint or by its completions only."""

    id: int
    name: str
    project: Named
    owner: str
    content_hash: str
    architecture: str
    parameters: int | None
    size_bytes: int | None
    dtype: str
    context_tokens: int | None
    has_files: bool
    notes: str
    tags: list[str]
    licence: str
    prompts_licence: str
    archived_at: datetime | None
    parent: int | None = Field(description="What it was trained from, where one sees it.")
    produced_by: int | None = Field(description="The run that made it, where one sees it.")
    created_at: datetime


class CheckpointsWanted(Paged):
    """Which checkpoints of the list."""

    name: Name = Field("", description="A part of its name.")
    exact: Name = Field("", description="Its whole name.")
    tag: Name = ""
    archived: bool = False


class DetailsIn(In):
    """What its owner says of a checkpoint; what is left out stays."""

    notes: Text | None = None
    tags: list[Name] | None = None
    licence: Text | None = None
    prompts_licence: Text | None = None
    project: Key | None = Field(None, description="Another one moves it, by an admin of both.")


def _rows(request: HttpRequest) -> QuerySet[Checkpoint]:
    rows = Checkpoint.objects.select_related("owner", "project", "parent", "produced_by")
    return seen_by(signed_in(request), rows)


def _managed(request: HttpRequest, pk: int) -> Checkpoint:
    checkpoint = get_object_or_404(_rows(request), pk=pk)
    if not may_manage(signed_in(request), checkpoint):
        raise PermissionDenied
    return checkpoint


def _out(request: HttpRequest, row: Checkpoint, seen: frozenset[int]) -> dict[str, Any]:
    """The row; of what lies in a project that one does not see, nothing."""
    names = set(CheckpointOut.model_fields) - {"parent", "produced_by", "owner", "project"}
    parent, run = row.parent, row.produced_by
    return {name: getattr(row, name) for name in names} | {
        "owner": row.owner.get_username(),
        "project": row.project,
        "parent": parent.pk if parent is not None and parent.project_id in seen else None,
        "produced_by": run.pk if run is not None and run.project_id in seen else None,
    }


@router.get("", response=Page[CheckpointOut])
def checkpoints_list(request: HttpRequest, wanted: Query[CheckpointsWanted]) -> dict[str, Any]:
    """Checkpoints, the newest first; the archived ones by themselves."""
    rows = _rows(request).filter(archived_at__isnull=not wanted.archived)
    if wanted.name:
        rows = rows.filter(name__icontains=wanted.name)
    if wanted.exact:
        rows = rows.filter(name=wanted.exact)
    if wanted.tag:
        rows = rows.filter(tags__contains=[wanted.tag])
    found, seen = page(rows, wanted), seen_projects(signed_in(request))
    return {**found, "items": [_out(request, each, seen) for each in found["items"]]}


@router.get("/{int:pk}", response=CheckpointOut)
def checkpoints_one(request: HttpRequest, pk: int) -> dict[str, Any]:
    """One checkpoint."""
    row = get_object_or_404(_rows(request), pk=pk)
    return _out(request, row, seen_projects(signed_in(request)))


@router.patch("/{int:pk}", response=CheckpointOut, auth=WRITE)
def checkpoints_edit(request: HttpRequest, pk: int, body: DetailsIn) -> dict[str, Any]:
    """Change notes, tags and licences, or move it to another project."""
    row, person = _managed(request, pk), signed_in(request)
    places = places_to_move(person, row)
    if body.project not in (None, row.project_id) and not places.filter(pk=body.project).exists():
        raise UserError(
            "project: it can be moved by an admin of both projects only; choose another.", "project"
        )
    known = {name: getattr(row, name) for name in DetailsIn.model_fields} | {
        "project": row.project_id
    }
    given = known | body.model_dump(exclude_none=True)
    form = DetailsForm(given | {"tags": ", ".join(given["tags"])}, places=places)
    details.save(person, row, cleaned(form))
    return checkpoints_one(request, pk)


@router.delete("/{int:pk}", response={204: None}, auth=WRITE)
def checkpoints_delete(request: HttpRequest, pk: int) -> None:
    """Delete it with its evaluations."""
    row, person = _managed(request, pk), signed_in(request)
    with transaction.atomic():
        audit.record(person, "checkpoint.delete", row)
        removal.delete_checkpoint(row, by=person)


_FILE: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}


def _answers(kind: str, words: str) -> dict[str, Any]:
    return {"responses": {200: {"description": words, "content": {kind: _FILE}}}}


@router.get("/{int:pk}/card", openapi_extra=_answers("text/markdown", "The card."))
def checkpoints_card(request: HttpRequest, pk: int) -> HttpResponse:
    """A student's model card, as README.md."""
    row = get_object_or_404(_rows(request), pk=pk)
    text = cards.card_of(row, seen_projects(signed_in(request)))
    return HttpResponse(text, content_type="text/markdown; charset=utf-8")


@router.get("/{int:pk}/checkpoint.tar", openapi_extra=_answers("application/x-tar", "The tar."))
def checkpoints_tar(request: HttpRequest, pk: int) -> StreamingHttpResponse:
    """The checkpoint with its card as one tar, streamed."""
    row = get_object_or_404(_rows(request), pk=pk)
    name, size, blocks = cards.tar_of(row, seen_projects(signed_in(request)))
    response = StreamingHttpResponse(blocks, content_type="application/x-tar")
    response["Content-Length"] = str(size)
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


# Last: its address would take those above for acts.
@router.post("/{int:pk}/{act}", response=Done, auth=WRITE)
def checkpoints_keep(
    request: HttpRequest, pk: int, act: Literal["archive", "restore", "release"]
) -> dict[str, str]:
    """Take it out of lists, put it back, or delete its files and keep its scores."""
    row, person = _managed(request, pk), signed_in(request)
    acts: dict[str, tuple[Callable[[], None], str]] = {
        "archive": (lambda: removal.set_archived(row, archived=True), "archived"),
        "restore": (lambda: removal.set_archived(row, archived=False), "taken back"),
        "release": (lambda: removal.release_files(row, by=person), "kept without its files"),
    }
    do, done = acts[act]
    with transaction.atomic():
        do()
        audit.record(person, f"checkpoint.{act}", row)
    return {"sentence": f"{row.name} was {done}."}

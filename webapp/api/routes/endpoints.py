"""Endpoints: models that are served elsewhere."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from pydantic import Field

from webapp.api.auth import WRITE
from webapp.api.framework import Query, Router, Schema
from webapp.api.paging import Page, Paged, page
from webapp.api.places import place
from webapp.api.schemas import In, Key, Name, Named, Text
from webapp.core import audit
from webapp.core.users import signed_in
from webapp.endpoints import services
from webapp.endpoints.models import Endpoint
from webapp.projects.access import may_manage, seen_by

router = Router(tags=["endpoints"])

Price = Annotated[
    float | None, Field(ge=0, le=1e6, allow_inf_nan=False, description="Per million tokens.")
]
Concurrency = Annotated[int, Field(ge=1, le=services.MOST_CONCURRENT)]


class EndpointOut(Schema):
    """A served model. Its key is never shown."""

    id: int
    name: str
    checkpoint: int = Field(description="What stands for it where scores are shown.")
    project: Named
    owner: str
    base_url: str
    model: str
    has_key: bool
    concurrency: int
    input_price: float | None
    output_price: float | None
    created_at: datetime


class EndpointIn(In):
    """Where a model is served, and under which name."""

    name: Name
    base_url: Annotated[Text, Field(max_length=500)]
    model: Name
    key: Annotated[Text, Field(max_length=4096)] = ""
    concurrency: Concurrency = 64
    input_price: Price = None
    output_price: Price = None
    project: Key | None = None


class EndpointChange(In):
    """What moves no score; a blank key leaves the one that is there."""

    key: Annotated[Text, Field(max_length=4096)] = ""
    remove_key: bool = False
    concurrency: Concurrency
    input_price: Price = None
    output_price: Price = None


class Probed(Schema):
    """What the endpoint said."""

    models: list[str]
    serves_model: bool | None = Field(description="null: it lists no models.")
    context_tokens: int | None


def _rows(request: HttpRequest) -> QuerySet[Endpoint]:
    rows = Endpoint.objects.select_related("checkpoint__project", "owner")
    return seen_by(signed_in(request), rows, "checkpoint__project")


def _managed(request: HttpRequest, pk: int) -> Endpoint:
    endpoint = get_object_or_404(_rows(request), pk=pk)
    if not may_manage(signed_in(request), endpoint.checkpoint):
        raise PermissionDenied
    return endpoint


def _out(row: Endpoint) -> dict[str, Any]:
    names = ("id", "base_url", "model", "concurrency", "input_price", "output_price", "created_at")
    return {name: getattr(row, name) for name in names} | {
        "name": row.checkpoint.name, "checkpoint": row.checkpoint_id,
        "project": row.checkpoint.project, "owner": row.owner.get_username(),
        "has_key": bool(row.sealed_key),
    }  # fmt: skip


@router.get("", response=Page[EndpointOut])
def endpoints_list(request: HttpRequest, wanted: Query[Paged]) -> dict[str, Any]:
    """Endpoints, the newest first."""
    found = page(_rows(request), wanted)
    return {**found, "items": [_out(each) for each in found["items"]]}


@router.get("/{int:pk}", response=EndpointOut)
def endpoints_one(request: HttpRequest, pk: int) -> dict[str, Any]:
    """One endpoint."""
    return _out(get_object_or_404(_rows(request), pk=pk))


@router.post("", response={201: EndpointOut}, auth=WRITE)
def endpoints_register(request: HttpRequest, body: EndpointIn) -> Any:
    """Register an endpoint; nothing is asked of it yet."""
    person = signed_in(request)
    values = body.model_dump(exclude={"project"})
    with transaction.atomic():
        row = services.register(owner=person, project=place(person, body.project), **values)
        audit.record(person, "endpoint.register", row)
    return _out(row)


@router.put("/{int:pk}", response=EndpointOut, auth=WRITE)
def endpoints_change(request: HttpRequest, pk: int, body: EndpointChange) -> dict[str, Any]:
    """Change its key, prices, and how many requests are sent at a time."""
    row = _managed(request, pk)
    with transaction.atomic():
        services.change(row, **body.model_dump())
        audit.record(signed_in(request), "endpoint.change", row)
    return _out(row)


@router.post("/{int:pk}/test", response=Probed, auth=WRITE)
def endpoints_test(request: HttpRequest, pk: int) -> dict[str, Any]:
    """Ask it for its models: some seconds at most."""
    row = _managed(request, pk)
    found = services.ask(row)
    return {
        "models": list(found.models[:100]),
        "serves_model": row.model in found.models if found.models else None,
        "context_tokens": found.greeting.context_tokens,
    }


@router.delete("/{int:pk}", response={204: None}, auth=WRITE)
def endpoints_delete(request: HttpRequest, pk: int) -> None:
    """Forget it; what was measured of it stays."""
    row, person = _managed(request, pk), signed_in(request)
    with transaction.atomic():
        audit.record(person, "endpoint.delete", row)
        services.delete(row, by=person)

"""No body sets what is not its to set: an unknown field is refused, and nothing comes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from django.apps import apps
from django.db import transaction
from django.db.models import Model
from django.test import Client

from tests.webapp.api.bodies import operations, send
from tests.webapp.api.rows import World, make_world, member
from webapp.api import tokens
from webapp.api.docs_views import _schema
from webapp.projects.models import Project, Role

pytestmark = pytest.mark.django_db

# What rows have and nobody sends, by names of columns and of forms.
FIELDS = (
    "id", "pk", "owner", "owner_id", "user", "project_id", "is_staff", "is_superuser", "is_active",
    "state", "created_at", "content_hash", "path", "digest", "expires_at", "limited_to", "by",
    "checkpoint_id", "produced_by", "parent", "metrics", "sealed_key", "archived_at",
)  # fmt: skip
# What would show that one of them was followed.
WATCHED = (
    "owner", "user", "project", "is_staff", "is_superuser", "is_active", "state", "role", "scope",
    "content_hash", "path", "digest", "parent", "produced_by",
)  # fmt: skip
WITH_BODY = [each for each in operations() if "requestBody" in each[2]]
WITHOUT = [each for each in operations() if each[0] != "get" and "requestBody" not in each[2]]
# It speaks to what nobody listens on, for seconds.
_SLOW = {"endpoints_test", "notifications_test"}


def named(given: list[Any]) -> dict[str, Any]:
    return {"argnames": ("method", "path", "told"), "argvalues": given,
            "ids": [told["operationId"] for *_, told in given]}  # fmt: skip


@pytest.fixture
def scene(admin: Any) -> tuple[World, Client, dict[str, Any]]:
    """Rows of an operator's, an administrator's client, and what a hostile body holds."""
    project = Project.objects.create(name="theirs")
    world = make_world(member("olga", project, Role.OPERATOR), project, "theirs")
    elsewhere = Project.objects.create(name="elsewhere")
    thief = member("sven", elsewhere, Role.VIEWER)
    _, secret = tokens.make(admin, name="t", scope="admin")
    hostile: dict[str, Any] = dict.fromkeys(FIELDS, 1) | {
        "owner": thief.pk, "owner_id": thief.pk, "user": thief.pk, "by": thief.pk,
        "project_id": elsewhere.pk, "limited_to": elsewhere.pk, "state": "finished",
        "created_at": "1999-01-01T00:00:00Z", "expires_at": "2999-01-01T00:00:00Z",
        "archived_at": "1999-01-01T00:00:00Z", "content_hash": "0" * 64, "digest": "0" * 64,
        "path": "/etc/passwd", "sealed_key": "x",
    }  # fmt: skip
    return world, Client(headers={"Authorization": f"Bearer {secret}"}), hostile


def rows() -> Counter[tuple[Any, ...]]:
    """What is watched of every row that there is; new keys are all alike."""

    def traits(model: type[Model]) -> Iterator[tuple[Any, ...]]:
        names = [each.attname for each in model._meta.concrete_fields if each.name in WATCHED]
        for row in model._default_manager.values_list(*names) if names else ():
            yield model._meta.label, *map(repr, row)

    return Counter(
        each for model in apps.get_models() for each in traits(model)
        if model.__module__.startswith("webapp.") and model._meta.label != "core.AuditEntry"
    )  # fmt: skip


@pytest.mark.parametrize(**named(WITH_BODY))
def test_an_unknown_field_is_refused(
    method: str, path: str, told: dict[str, Any], scene: Any
) -> None:
    world, client, hostile = scene
    properties = known(told)
    before = rows()
    for field, value in hostile.items():
        if field in properties:
            continue
        with transaction.atomic():
            answer = send(client, method, path, told, world, {field: value})
            assert answer.status_code == 422, (field, answer.status_code, answer.content)
            assert answer.json()["field"] == field
            assert rows() == before
            transaction.set_rollback(True)


@pytest.mark.parametrize(**named(WITHOUT))
def test_what_takes_no_body_heeds_none(
    method: str, path: str, told: dict[str, Any], scene: Any
) -> None:
    if told["operationId"] in _SLOW:
        pytest.skip("it writes no row")
    world, client, hostile = scene
    found = []
    for more in ({}, hostile):
        with transaction.atomic():
            answer = send(client, method, path, told, world, more)
            assert answer.status_code in (200, 204, 404, 422), answer.content
            found.append((answer.status_code, rows()))
            transaction.set_rollback(True)
    assert found[0] == found[1]


def test_every_body_of_json_is_closed_in_the_schema() -> None:
    def bodies(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
        whole = resolved(schema)
        if "properties" in whole:
            yield whole
        inner = [*whole.get("properties", {}).values(), *whole.get("anyOf", ())]
        for each in [*inner, *([whole["items"]] if "items" in whole else [])]:
            yield from bodies(each)

    seen = 0
    for _, path, told in WITH_BODY:
        for kind, content in told["requestBody"]["content"].items():
            for each in bodies(content["schema"]) if kind == "application/json" else ():
                assert each["additionalProperties"] is False, (path, each["title"])
                seen += 1
    assert seen > 20


def known(told: dict[str, Any]) -> set[str]:
    """The fields that a body has."""
    [content] = told["requestBody"]["content"].values()
    return set(resolved(content["schema"])["properties"])


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        found: dict[str, Any] = _schema()["components"]["schemas"][schema["$ref"].split("/")[-1]]
        return found
    return schema

"""The audit log's page and CSV: who reads what of it."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from tests.webapp.samples import HOSTILE, text_of
from tests.webapp.test_projects import client_of, person
from webapp.core import audit
from webapp.core.models import User
from webapp.projects import services
from webapp.projects.models import Project, Role

pytestmark = pytest.mark.django_db


@pytest.fixture
def people(admin: User) -> dict[str, User]:
    found = {
        "root": admin,
        "boss": person("boss", labs=Role.ADMIN),
        "hand": person("hand", labs=Role.OPERATOR),
    }
    person("other", theirs=Role.ADMIN)
    for name in ("labs", "theirs"):
        project = Project.objects.get(name=name)
        audit.record(found["hand"], "run.cancel", project, why=f"of {name}")
    audit.record(admin, "account.deactivate", found["hand"])
    return found


def rows(answer: Any) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(answer.content.decode())))


def test_administrators_read_all_and_admins_their_projects(people: dict[str, User]) -> None:
    told = {
        name: {(row["action"], row["project"]) for row in rows(
            client_of(people[name]).get("/accounts/audit/csv/")
        )}
        for name in ("root", "boss")
    }  # fmt: skip
    assert told["boss"] == {("run.cancel", "labs")}
    assert told["root"] == {
        ("run.cancel", "labs"), ("run.cancel", "theirs"), ("account.deactivate", ""),
    }  # fmt: skip
    page = text_of(client_of(people["boss"]).get("/accounts/audit/"))
    assert "of labs" in page
    assert "theirs" not in page
    for address in ("/accounts/audit/", "/accounts/audit/csv/"):
        assert client_of(people["hand"]).get(address).status_code == 403
        assert Client().get(address).status_code == 302


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ({"person": "HAND"}, 2), ({"person": "nobody"}, 0), ({"action": "run."}, 2),
        ({"action": "account.deactivate"}, 1), ({"thing": "lab"}, 1),
        ({"since": "2020-01-01", "until": "2999-01-01"}, 3), ({"since": "2999-01-01"}, 0),
        ({"until": "2020-01-01"}, 0), ({"until": "9999-12-31"}, 3),
        ({"since": "9999-12-31"}, 0), ({"since": "no day\x00"}, 3), ({"person": "%"}, 0),
        ({"project": "labs"}, 3), ({"project": "none"}, 1), ({"project": "9" * 18}, 0),
        ({"project": "9" * 30}, 3),
    ],
)  # fmt: skip
def test_filters(people: dict[str, User], query: dict[str, str], count: int) -> None:
    client = client_of(people["root"])
    assert len(rows(client.get("/accounts/audit/csv/", query))) == count
    assert client.get("/accounts/audit/", query).status_code == 200


def test_a_project_is_filtered_by_what_it_was_and_is(people: dict[str, User]) -> None:
    """Under each name that it had, after it was deleted, and nobody else's."""
    labs, theirs = (Project.objects.get(name=name) for name in ("labs", "theirs"))
    key = labs.pk
    boss = client_of(people["boss"])
    assert len(rows(boss.get("/accounts/audit/csv/", {"project": key}))) == 1
    assert rows(boss.get("/accounts/audit/csv/", {"project": theirs.pk})) == []
    assert f'<option value="{theirs.pk}"' not in text_of(boss.get("/accounts/audit/"))
    Project.objects.filter(pk=key).update(name="workshop")
    audit.record(people["boss"], "run.cancel", Project.objects.get(pk=key))
    services.delete(people["root"], Project.objects.get(pk=key))
    root = client_of(people["root"])
    found = rows(root.get("/accounts/audit/csv/", {"project": key}))
    assert [row["action"] for row in found] == ["project.delete", "run.cancel", "run.cancel"]
    assert [row["project"] for row in found] == ["workshop", "workshop", "labs"]
    page = text_of(root.get("/accounts/audit/", {"project": key}))
    assert f'<option value="{key}" selected>workshop (deleted)</option>' in page
    assert f"/accounts/audit/csv/?project={key}" in page


def test_texts_are_neither_formulae_nor_markup(people: dict[str, User]) -> None:
    Project.objects.filter(name="labs").update(name="=1+1" + HOSTILE[:80])
    audit.record(people["boss"], "run.cancel", Project.objects.get(name__startswith="="), why="@x")
    client = client_of(people["root"])
    newest = rows(client.get("/accounts/audit/csv/"))[0]
    assert newest["name"].startswith("'=1+1")
    assert HOSTILE[:80] not in text_of(client.get("/accounts/audit/"))


def test_a_page_takes_as_many_queries_however_much_there_is(
    people: dict[str, User], django_assert_max_num_queries: Any
) -> None:
    for _ in range(60):
        audit.record(people["hand"], "run.cancel")
    client = client_of(people["root"])
    with django_assert_max_num_queries(6, connection=connection):
        page = text_of(client.get("/accounts/audit/"))
    assert "Page 1 of 2" in page

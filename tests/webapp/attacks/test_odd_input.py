"""Values that no browser sends: whatever stands in a query or a form, no page fails.

The names of fields and of queries are read from the pages themselves, so that a new one is tried
without a word here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from django.conf import settings as product
from django.http import QueryDict
from django.test import Client

from tests.webapp import access_world
from tests.webapp.access_table import ACTS, DONE
from tests.webapp.access_world import ADMINISTRATOR, OWNER, World, undone
from tests.webapp.api.rows import make_world, member
from tests.webapp.api.test_schema import known_key
from tests.webapp.test_access import body_of, chosen
from webapp.api import tokens
from webapp.api.docs_views import _schema
from webapp.api.models import Scope
from webapp.projects.access import first_project
from webapp.projects.models import Role

pytestmark = pytest.mark.django_db

# As bytes of a query or of an urlencoded form: NUL, halves of surrogate pairs, what is no UTF-8,
# numbers beyond every column, beyond `int`'s digits and of no size, digits that are not ASCII, a
# deep list, the ends of time, and lines.
ODD = (
    "a%00b", "%ED%A0%80%FF", "9" * 20, "-1", "9" * 5000, "1e999", "NaN", "%D9%A3", "%C2%B2",
    "%5B" * 3000, "9999-12-31", "0001-01-01", "%0D%0AX: y", "",
)  # fmt: skip
MOST_TELLING = 5
# Read by a page, and in no link of this small installation.
UNLINKED = {
    "alike", "all", "as", "back", "base", "by", "claim", "clone", "draining", "e", "format", "from",
    "lengths", "name", "offset", "page", "paths", "people", "preset", "private_texts", "project",
    "reason", "sample", "samplea", "sampleb", "show", "since", "sort", "tag", "until", "yaml",
}  # fmt: skip
# They ask others, and take no field.
ASKING = ("endpoints:test", "notifications:test")


class Names(HTMLParser):
    """What a page's forms and links send: names of fields, and names in queries."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        if tag in ("input", "select", "textarea", "button") and "name" in given:
            self.found.add(given["name"])
        for key in ("href", "hx-get", "action"):
            self.found |= set(QueryDict(unescape(given.get(key, "")).partition("?")[2]))


@pytest.fixture
def world(settings: Any, tmp_path: Path) -> World:
    settings.MEDIA_ROOT = tmp_path / "files"
    world = access_world.build()
    for role in (OWNER, ADMINISTRATOR):  # signing in is not undone
        world.client(role).raise_request_exception = False
    return world


@pytest.fixture
def names(world: World) -> set[str]:
    """All names that any page shows."""
    parser = Names()
    for act in ACTS:
        if act.method == "get":
            with undone():
                answer = act.send(world.client(ADMINISTRATOR), world)
                body = body_of(answer)
            if answer.get("Content-Type", "").startswith("text/html"):
                parser.feed(body.decode())
    return (parser.found | UNLINKED) - {"csrfmiddlewaretoken"}


def test_the_names_are_those_that_the_code_reads(names: set[str]) -> None:
    """What views take out of a request by name: none is tried by nobody."""
    read = set()
    for path in (product.BASE_DIR / "webapp").rglob("*views.py"):
        read |= set(re.findall(r"(?:GET|POST)(?:\.getlist|\.get)?[(\[]\"(\w+)\"", path.read_text()))
    assert len(read) > 20
    assert read <= names | {"act", "action", "archived", "benchmark", "benchmarks", "checkpoint"}


def test_no_odd_query_fails(world: World, names: set[str]) -> None:
    found = []
    for act in ACTS:
        if act.method != "get":
            continue
        client, address = world.client(ADMINISTRATOR), act.address(world).partition("?")[0]
        for value in ODD:
            with undone():
                whole = "&".join(f"{name}={value}" for name in sorted(names))
                answer = client.get(f"{address}?{whole}")
                body_of(answer)
            if answer.status_code >= 500:
                found.append(f"{act}: {value[:30]}")
    assert not found, "\n".join(found)


def test_no_odd_form_fails(world: World, names: set[str]) -> None:
    """All fields at once, and then each that the act is known to send beside the right others."""
    found = []
    for act in ACTS:
        if act.method != "post" or act.content_type or act.name in ASKING:
            continue
        role = ADMINISTRATOR if act.who[ADMINISTRATOR] == DONE else OWNER
        client, address = world.client(role), act.address(world)
        right = (act.data(world) if act.data else {}) | chosen(world, act, role)
        for value in ODD:
            for body in _bodies(right, names, value):
                with undone():
                    answer = client.post(address, body, "application/x-www-form-urlencoded")
                    body_of(answer)
                if answer.status_code >= 500:
                    found.append(f"{act}: {body[-80:]}")
    assert not found, "\n".join(found)


def _bodies(right: dict[str, Any], names: set[str], value: str) -> Iterator[str]:
    yield "&".join(f"{name}={value}" for name in sorted(names | set(right)))
    for name in right if value in ODD[:MOST_TELLING] else ():
        others = {key: each for key, each in right.items() if key != name}
        yield f"{urlencode(others, doseq=True)}&{name}={value}"


def test_no_odd_query_of_the_api_fails(admin: Any, settings: Any, tmp_path: Path) -> None:
    settings.MEDIA_ROOT = tmp_path / "files"
    settings.RETORT_API_RATE = "100000/m"
    project = first_project()
    world = make_world(member("olga", project, Role.OPERATOR), project, "own")
    _, secret = tokens.make(admin, name="t", scope=Scope.ADMIN)
    client = Client(headers={"Authorization": f"Bearer {secret}"}, raise_request_exception=False)
    found, asked = [], 0
    for path, methods in _schema()["paths"].items():
        keys = {name: known_key(path, name, world.keys) for name in re.findall(r"{(\w+)}", path)}
        address = path.format(**keys)
        for parameter in methods.get("get", {}).get("parameters", ()):
            if parameter["in"] != "query":
                continue
            for value in ODD:
                answer = client.get(f"{address}?{parameter['name']}={value}")
                body_of(answer)
                asked += 1
                if answer.status_code >= 500:
                    found.append(f"{path}?{parameter['name']}={value[:30]}")
    assert not found, "\n".join(found)
    assert asked > 500

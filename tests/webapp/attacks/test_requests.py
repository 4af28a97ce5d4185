"""Redirects, headers, hosts and error pages: what a request says leads nobody elsewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from tests.webapp import access_world
from tests.webapp.access_table import ACTS, Act
from tests.webapp.access_world import ADMINISTRATOR, OWNER, World, undone
from tests.webapp.attacks import hostile
from tests.webapp.test_access import chosen

pytestmark = pytest.mark.django_db

ELSEWHERE = (
    "https://evil.example/", "//evil.example/", "/\\evil.example/", "\\\\evil.example",
    "\t//evil.example", "https:evil.example", "javascript:alert(1)", "///evil.example",
    "http://127.0.0.1@evil.example/", "/%09/evil.example", "data:text/html,x",
    "https://testserver.evil.example/", "/x\r\nSet-Cookie: a=b",
)  # fmt: skip
PLAIN_NAME = re.compile(r'attachment; filename="[A-Za-z0-9._-]{1,200}"')


@pytest.fixture
def world(settings: Any, tmp_path: Path) -> World:
    settings.MEDIA_ROOT = tmp_path / "files"
    return access_world.build()


def is_here(location: str) -> bool:
    """Whether a browser that follows it stays: one slash, and no trick before the path."""
    return bool(re.match(r"/(?![/\\])", location)) and not re.search(r"[\x00-\x20\\]", location)


@pytest.mark.parametrize("where", ELSEWHERE)
def test_signing_in_leads_nowhere_else(client: Client, user: Any, where: str) -> None:
    data = {"username": "ada", "password": "a long enough password", "next": where}
    address = reverse("core:login")
    answer = client.post(address, data)
    assert answer.status_code == 302
    assert is_here(answer["Location"]), answer["Location"]
    assert "evil" not in answer["Location"] or answer["Location"].startswith("/")
    again = client.get(address, {"next": where})  # signed in already
    assert again.status_code == 302
    assert is_here(again["Location"]), again["Location"]


def test_no_action_leads_elsewhere(world: World) -> None:
    """Not by where one came from, nor by a field."""
    where = "//evil.example/"
    headers = {"referer": where, "HX-Current-URL": where, "X-Forwarded-Host": "evil.example"}
    for act in ACTS:
        if act.method != "post" or act.content_type:
            continue
        for role in (OWNER, ADMINISTRATOR):
            client = world.client(role)
            data = (act.data(world) if act.data else {}) | chosen(world, act, role)
            with undone():
                answer = client.post(
                    act.address(world), data | {"next": where, "back": where}, headers=headers
                )
            for name in ("Location", "HX-Redirect", "HX-Location", "Refresh"):
                found = answer.headers.get(name, "/")
                assert is_here(found), (act, name, found)


def test_a_name_ends_no_header(world: World) -> None:
    """Of every download of the hostile installation: plain names, and no line of its own."""
    hostile.build(world)
    seen = 0
    for act in ACTS:
        if act.method != "get":
            continue
        client = world.client(ADMINISTRATOR)
        with undone():
            answer = act.send(client, world)
        for name, value in answer.headers.items():
            assert "\n" not in value, (act, name)
            assert "\r" not in value, (act, name)
        if "Content-Disposition" in answer.headers:
            assert PLAIN_NAME.fullmatch(answer["Content-Disposition"]), act
            seen += 1
    assert seen >= 8


def test_other_hosts_are_not_answered_for(client: Client, user: Any) -> None:
    client.force_login(user)
    for host in ("evil.example", "localhost.evil.example", "localhost@evil.example", "a b"):
        answer = client.get("/", headers={"host": host})
        assert answer.status_code == 400
        assert b"evil.example" not in answer.content
    # What a proxy did not set is not believed.
    forwarded = client.get("/", headers={"host": "localhost", "X-Forwarded-Host": "evil.example"})
    assert forwarded.status_code == 200
    assert b"evil.example" not in forwarded.content


@pytest.mark.parametrize("wanted", [OWNER, ADMINISTRATOR])
def test_error_pages_tell_nothing_of_the_inside(
    world: World, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from webapp.runs import queries

    def fail(*_: Any, **__: Any) -> None:
        password = "planted-in-a-variable"
        raise RuntimeError(f"planted in a message: {password}")

    client = world.client(wanted)
    client.raise_request_exception = False
    monkeypatch.setattr(queries, "run_view", fail)
    broken = client.get(Act("runs:detail", {}, places={"pk": "running"}).address(world))
    absent = client.get("/no/such/<script>page/")
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(world.people[wanted])
    forged = strict.post(reverse("core:logout"))
    host = client.get("/", headers={"host": "evil.example"})
    for answer, status in ((broken, 500), (absent, 404), (forged, 403), (host, 400)):
        assert answer.status_code == status
        body = answer.content.decode()
        for word in (
            "planted",
            "Traceback",
            "RuntimeError",
            "django",
            "settings",
            ".py",
            "<script>",
        ):
            assert word not in body, (status, word)

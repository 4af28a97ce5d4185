"""Who may do what: every address × method × role, held against one table.

An address that the table (access_table.py) does not know fails, and so does a request that changes
a row though the table says that it is refused. The API's table is in ``tests/webapp/api``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.db.models import ForeignKey
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from tests.webapp.access_table import (
    ABSENT,
    ACTS,
    DONE,
    LOGIN,
    PIECE,
    REFUSED,
    REJECTED,
    TUS,
    Act,
)
from tests.webapp.access_world import (
    ADMIN,
    ADMINISTRATOR,
    MARK,
    OWNER,
    ROLES,
    STRANGER,
    World,
    build,
    contents,
    difference,
    no_such,
    undone,
)
from tests.webapp.samples import arithmetic, make_benchmark
from webapp.core.models import User
from webapp.projects.models import Project

pytestmark = pytest.mark.django_db

API = re.compile(r"^api:(?!docs|openapi)")  # tests/webapp/api holds their table
NAMES = {act.name for act in ACTS}


def names(resolver: URLResolver, space: str = "") -> Iterator[str]:
    """The full name of every address below ``resolver``."""
    for pattern in resolver.url_patterns:
        if isinstance(pattern, URLPattern):
            yield f"{space}{pattern.name}"
        else:
            yield from names(pattern, f"{space}{pattern.namespace}:" if pattern.namespace else "")


def body_of(answer: Any) -> bytes:
    """The whole body; a stream is read to its end, which closes it."""
    return b"".join(answer.streaming_content) if answer.streaming else answer.content


def outcome(answer: Any) -> str:
    """Which of the four it was. The sign-in page itself is done."""
    body = body_of(answer)
    if answer.status_code == 302 and answer["Location"].startswith("/accounts/login/?next="):
        return LOGIN
    assert answer.status_code < 500, body[:300]
    return {403: REFUSED, 404: ABSENT}.get(answer.status_code, DONE)


def became(act: Act, role: str, answer: Any) -> str:
    """The outcome; of a form that was not accepted only where that is what the table expects."""
    found = outcome(answer)
    is_rejection = answer.status_code == 400 and act.who[role] == REJECTED
    return REJECTED if is_rejection else found


@pytest.fixture
def world(settings: Any, tmp_path: Path) -> World:
    settings.MEDIA_ROOT = tmp_path / "files"
    return build()


def test_the_table_knows_every_address() -> None:
    found = {name for name in names(get_resolver()) if not API.match(name)}
    assert found == NAMES


def chosen(world: World, act: Act, role: str) -> dict[str, Any]:
    """Who works in several projects has to say in which."""
    is_form = act.method == "post" and not act.content_type
    launches = is_form and role == ADMINISTRATOR and not act.name.startswith("tokens:")
    return {"project": world.project.pk} if launches else {}


def test_everybody_gets_what_the_table_says(world: World) -> None:
    """Each act by each role: what became of it, and whether it changed a row."""
    faults = []
    before = contents()
    for act in ACTS:
        for role in ROLES:
            client = world.client(role)  # signing in is not undone
            with undone(before) as changed:
                answer = act.send(client, world, **chosen(world, act, role))
                was = became(act, role, answer)
            if was != act.who[role]:
                faults.append(f"{act} by {role}: {was} ({answer.status_code})")
            elif changed and (was != DONE or not act.changes):
                faults.append(f"{act} by {role}: {was}, but changed {list(changed)}")
            elif act.changes and was == DONE and not changed:
                faults.append(f"{act} by {role}: changed nothing: {answer.status_code}")
    assert not faults, "\n".join(faults)


def veiled(body: bytes) -> str:
    """A body without what differs from answer to answer: tokens, nonces, and every number."""
    text = body.decode(errors="replace")
    text = re.sub(r'nonce="[^"]*"|name="csrfmiddlewaretoken" value="[^"]*"', "", text)
    text = re.sub(r"x-csrftoken&quot;: &quot;[^&]*|x-csrftoken\": \"[^\"]*", "", text)
    return re.sub(r"\d+", "#", text)


# What everybody sees.
INSTALLATIONS = ("benchmark", "prompt_set", "problem", "worker", "person")


def absent_of(world: World) -> World:
    """The same world as somebody knows it who makes the keys up."""
    keys = dict(world.keys)
    for place, (thing, key) in enumerate(world.keys.items()):
        if thing not in INSTALLATIONS:
            keys[thing] = 900_000 + place if isinstance(key, int) else no_such()
    return World(world.people, world.project, world.other, keys, world.clients)


def test_what_is_elsewhere_answers_as_what_is_nowhere(world: World) -> None:
    """Status, body and headers tell a stranger nothing about whether there is such a thing."""
    faults, client = [], world.client(STRANGER)
    for act in ACTS:
        if act.who[STRANGER] not in (ABSENT, REJECTED):
            continue
        with undone():
            here = act.send(client, world)
            body = veiled(body_of(here))
        with undone():
            nowhere = act.send(client, absent_of(world))
            other = veiled(body_of(nowhere))
        if here.status_code != nowhere.status_code or body != other:
            faults.append(f"{act}: {here.status_code}, else {nowhere.status_code}")
        elif here.headers.keys() != nowhere.headers.keys():
            faults.append(f"{act}: {here.headers.keys() ^ nowhere.headers.keys()}")
    assert not faults, "\n".join(faults)


def test_no_page_tells_a_stranger_of_what_they_do_not_see(world: World) -> None:
    """Lists, counts, forms, choices, hints and estimates: nothing of the project is in any."""
    faults, client = [], world.client(STRANGER)
    for act in ACTS:
        with undone():
            body = body_of(act.send(client, world)).decode(errors="replace").lower()
        if MARK in body:
            where = body.index(MARK)
            faults.append(f"{act}: …{body[max(where - 80, 0) : where + 40]!r}")
    assert not faults, "\n".join(faults)


# --- forged requests


def unsafe_acts() -> list[Act]:
    return [act for act in ACTS if act.method not in ("get", "head", "options")]


def who_may(act: Act) -> str:
    """A role that the act is done for."""
    return next((r for r in (OWNER, ADMIN) if act.who[r] == DONE), ADMINISTRATOR)


def test_no_unsafe_request_is_taken_without_its_token(world: World) -> None:
    before = contents()
    for act in unsafe_acts():
        client = Client(enforce_csrf_checks=True)
        client.force_login(world.people[who_may(act)])
        with undone(before) as changed:
            assert act.send(client, world).status_code == 403, act
        assert changed == {}, act


def test_only_the_methods_of_the_table_are_answered(world: World) -> None:
    allowed: dict[str, set[str]] = {}
    for act in ACTS:
        allowed.setdefault(act.name, set()).add(act.method)
    allowed["core:login"] |= {"post", "put", "patch", "delete", "trace"}  # Django's own page
    before = contents()
    seen = set()
    for act in ACTS:
        for method in ("get", "post", "put", "patch", "delete", "trace"):
            if method in allowed[act.name] or (act.name, method) in seen:
                continue
            seen.add((act.name, method))
            for role in (OWNER, ADMINISTRATOR):
                client = world.client(role)
                with undone(before) as changed:
                    status = getattr(client, method)(act.address(world)).status_code
                assert status in (403, 404, 405), (act, method, status)
                assert changed == {}, (act, method)


def test_a_safe_request_cannot_say_that_it_is_another(world: World) -> None:
    before = contents()
    for act in unsafe_acts():
        client = world.client(who_may(act))
        address = act.address(world)
        with undone(before) as changed:
            client.get(
                f"{address}{'&' if '?' in address else '?'}_method=POST&act=delete",
                headers={"X-HTTP-Method-Override": "DELETE", "X-Method-Override": "POST"},
            )
        assert changed == {}, act


# --- what a form has no field for

FOREIGN = "mass-assigned"


def assigned(world: World) -> dict[str, Any]:
    """Fields that rows have and forms do not, each with a value that would be noticed."""
    stranger, elsewhere = world.people[STRANGER].pk, world.other.pk
    words = (
        "state", "path", "content_hash", "sealed_key", "sealed_secret", "error", "log_tail",
        "config", "metrics", "measurement_hash", "produced_by", "password", "revision", "outcome",
        "worker", "role", "kind", "digest", "secret_hash", "sha256",
    )  # fmt: skip
    return {
        **dict.fromkeys(words, FOREIGN), "owner": stranger, "owner_id": stranger,
        "user": stranger, "user_id": stranger, "author": stranger, "project_id": elsewhere,
        "project": elsewhere, "is_staff": "on", "is_superuser": "on", "pass_at_1": "0.875",
        "id": 471147114, "pk": 471147114,
        "lease_token": str(no_such()), "archived_at": "1999-01-01", "max_running_shards": 99,
    }  # fmt: skip


def held_by(world: World) -> list[int]:
    """How many rows belong to the stranger or to the other project, by table and column."""
    targets = {User: world.people[STRANGER].pk, Project: world.other.pk}
    return [
        model._default_manager.filter(**{column.name: targets[column.related_model]}).count()
        for model in apps.get_models()
        for column in model._meta.fields
        if isinstance(column, ForeignKey) and column.related_model in targets
    ]


def test_a_form_takes_no_field_that_it_does_not_have(world: World) -> None:
    """The owner, the project, the state and what people are cannot be sent along."""
    before, held, extra = contents(), held_by(world), assigned(world)
    done = 0
    for act in unsafe_acts():
        if act.content_type:  # no form
            continue
        client = world.client(who_may(act))
        own = set(act.data(world)) if act.data else set()
        with undone(before) as changed:
            act.send(client, world, **{k: v for k, v in extra.items() if k not in own})
            now = held_by(world)
        rows = "".join(row for found in changed.values() for row in found)
        for sent in (FOREIGN, "0.875", "471147114", "1999-01-01"):
            assert sent not in rows, (act, sent)
        people = [row for row in changed.get("core_user", []) if '"max_running_sh' in row]
        assert not people or act.name in ("runs:limit", "core:deactivate"), (act, people)
        # A withdrawal and the like may delete rows; nothing comes to the stranger.
        assert all(these <= those for these, those in zip(now, held, strict=True)), act
        done += bool(changed)
    assert done > 10


# --- one's own thing, with a part of another's

NESTED = (
    # (address, parts): each part exists, and belongs to something else
    ("leaderboard:raw", {"pk": "theirs", "problem": "odd_problem", "sample": "0"}),
    ("leaderboard:part", {"pk": "theirs", "problem": "odd_problem", "sample": "0",
                          "which": "answer"}),
    ("leaderboard:problem", {"pk": "theirs", "problem": "odd_problem"}),
    ("leaderboard:download", {"pk": "theirs", "report": "report"}),
    ("leaderboard:download", {"pk": "more", "report": "report"}),
)  # fmt: skip
NESTED_UNSAFE = (
    ("leaderboard:withdraw", "post", {"pk": "theirs", "dispute": "dispute"}),
    ("leaderboard:withdraw", "post", {"pk": "more", "dispute": "dispute"}),
    ("leaderboard:dispute", "post", {"pk": "theirs", "problem": "odd_problem", "sample": "0"}),
    ("checkpoints:tus-file", "patch", {"upload": "second_upload", "pk": "file"}),
    ("checkpoints:tus-file", "delete", {"upload": "second_upload", "pk": "file"}),
)


@pytest.mark.parametrize("role", [STRANGER, OWNER, ADMINISTRATOR])
def test_a_part_is_found_below_its_own_whole_only(world: World, role: str) -> None:
    other = make_benchmark(arithmetic(3), name="other")
    world.keys["odd_problem"] = other.problems.earliest("pk").pk
    before = contents()
    for name, places in NESTED:
        act = Act(name, {}, places=places)
        assert act.send(world.client(role), world).status_code == 404, act
    for name, method, places in NESTED_UNSAFE:
        headers = TUS | {"Upload-Offset": "0"} if "tus" in name else {}
        kind = PIECE if method == "patch" else ""
        act = Act(name, {}, method, places=places, headers=headers, content_type=kind)
        assert act.send(world.client(role), world).status_code == 404, act
        assert difference(before) == {}, act

"""Endpoints: registered with care for the key, tested in bounded time, deleted when unused."""

from __future__ import annotations

import logging
import re
import time
from functools import partial
from typing import Any

import pytest
from aiohttp import web
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.urls import reverse

from tests.evaluator.endpoint_stub import Body, Stub
from tests.webapp.samples import arithmetic, make_benchmark, make_evaluation, make_run, make_stage
from webapp.checkpoints.models import Checkpoint
from webapp.core import sealing
from webapp.core.errors import UserError
from webapp.endpoints import services
from webapp.endpoints.models import Endpoint
from webapp.runs.models import Run, State

pytestmark = pytest.mark.django_db

KEY = "sk-never-to-be-seen-4711"


@pytest.fixture
def endpoint(user: Any) -> Endpoint:
    return services.register(
        owner=user, name="served/r1", base_url="https://models.example/v1/", model="deepseek-r1",
        key=KEY,
    )  # fmt: skip


def filled(**changes: Any) -> dict[str, Any]:
    return {
        "name": "new", "base_url": "http://127.0.0.1:9/v1", "model": "m", "key": KEY,
        "concurrency": 8, "input_price": "0.5", "output_price": "",
    } | changes  # fmt: skip


# --- the key


def database_dump() -> str:
    """Every value of every row in every table."""
    with connection.cursor() as cursor:
        tables = connection.introspection.table_names(cursor)
        dump = []
        for table in tables:
            cursor.execute(f'SELECT t::text FROM "{table}" AS t')
            dump += [row[0] for row in cursor.fetchall()]
    return "\n".join(dump)


def test_the_key_is_encrypted_at_rest_and_can_be_read_back(endpoint: Endpoint) -> None:
    assert services.key_of(endpoint) == KEY
    dump = database_dump()
    assert endpoint.base_url in dump
    assert KEY not in dump
    assert KEY not in repr(vars(endpoint))
    assert sealing.seal(KEY) != sealing.seal(KEY)  # equal keys do not show as such


def test_another_secret_opens_nothing_and_the_old_one_does_until_it_is_taken_off(
    endpoint: Endpoint, settings: Any, capsys: Any
) -> None:
    first = settings.SECRET_KEY
    settings.SECRET_KEY = "another"
    with pytest.raises(UserError, match="enter it again"):
        services.key_of(endpoint)
    with pytest.raises(CommandError, match="enter it again"):
        call_command("reseal")
    settings.SECRET_KEY_FALLBACKS = [first]
    assert services.key_of(endpoint) == KEY
    call_command("reseal")
    assert "1 sealed anew" in capsys.readouterr().out
    settings.SECRET_KEY_FALLBACKS = []
    endpoint.refresh_from_db()
    assert services.key_of(endpoint) == KEY
    settings.RETORT_ENCRYPTION_KEYS = ["own", "another"]  # own keys: SECRET_KEY may change freely
    assert services.key_of(endpoint) == KEY
    settings.RETORT_ENCRYPTION_KEYS = ["own"]
    with pytest.raises(UserError):
        services.key_of(endpoint)


def test_a_changed_ciphertext_is_no_key(endpoint: Endpoint) -> None:
    sealed = endpoint.sealed_key
    flipped = "A" if sealed[40] != "A" else "B"
    endpoint.sealed_key = sealed[:40] + flipped + sealed[41:]
    with pytest.raises(UserError, match="cannot be read"):
        services.key_of(endpoint)


def test_no_page_and_no_log_shows_the_key(
    page: Client, caplog: pytest.LogCaptureFixture, user: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    bad = page.post(reverse("endpoints:register"), filled(model=""))
    assert bad.status_code == 400
    good = page.post(reverse("endpoints:register"), filled())
    assert good.status_code == 302
    found = Endpoint.objects.get()
    addresses = (found.get_absolute_url(), reverse("endpoints:index"), reverse("runs:evaluate"))
    shown = [bad, *(page.get(address) for address in addresses)]
    shown.append(page.post(found.get_absolute_url(), {"key": KEY, "concurrency": 0}))
    assert shown[-1].status_code == 400
    for response in shown:
        text = response.content.decode()
        assert KEY not in text
        assert found.sealed_key not in text
    assert KEY not in caplog.text


def test_a_blank_key_leaves_the_stored_one_and_a_tick_removes_it(
    page: Client, endpoint: Endpoint
) -> None:
    address = endpoint.get_absolute_url()
    assert page.post(address, {"key": "", "concurrency": 3}).status_code == 302
    endpoint.refresh_from_db()
    assert (endpoint.concurrency, services.key_of(endpoint)) == (3, KEY)
    both = page.post(address, {"key": "k", "remove_key": "on", "concurrency": 3})
    assert "not both" in both.content.decode()
    assert page.post(address, {"remove_key": "on", "concurrency": 3}).status_code == 302
    endpoint.refresh_from_db()
    assert services.key_of(endpoint) == endpoint.sealed_key == ""


# --- bad input


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""), ("name", "a b"), ("name", "x" * 201), ("name", "served/r1"),
        ("base_url", ""), ("base_url", "models.example/v1"), ("base_url", "ftp://h/v1"),
        ("base_url", "https://user:pass@h/v1"), ("base_url", "https://h/v1?key=1"),
        ("base_url", "https://h:99999/v1"), ("base_url", "https://h/" + "x" * 500),
        ("base_url", "https://h/a b"), ("model", ""), ("model", "x" * 201), ("model", "a\nb"),
        ("key", "clé"), ("key", "a\nb"), ("key", "x" * 4097), ("concurrency", 0),
        ("concurrency", 1025), ("concurrency", "many"), ("input_price", -1),
        ("output_price", "nan"), ("input_price", "1e9"),
    ],
)  # fmt: skip
def test_bad_input_is_told_at_its_field(
    page: Client, endpoint: Endpoint, field: str, value: Any
) -> None:
    response = page.post(reverse("endpoints:register"), filled(**{field: value}))
    assert response.status_code == 400
    form = response.context["form"]
    assert set(form.errors) == {field}
    label = str(form.fields[field].label or field).lower()
    for sentence in form.errors[field]:
        assert sentence.lower().startswith((f"{label}: ", f"{field.replace('_', ' ')}: ", field))
        assert sentence.endswith(".")
    assert Endpoint.objects.count() == 1
    assert Checkpoint.objects.count() == 1


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/v1", "http://[::1]:8000/v1", "http://169.254.169.254/v1"]
)
def test_private_addresses_are_refused_unless_the_setting_allows_them(
    user: Any, settings: Any, url: str
) -> None:
    settings.RETORT_ALLOW_PRIVATE_ENDPOINTS = False
    with pytest.raises(UserError, match="RETORT_ALLOW_PRIVATE_ENDPOINTS") as refusal:
        services.register(owner=user, name="x", base_url=url, model="m")
    assert refusal.value.field == "base_url"
    assert not Checkpoint.objects.exists()
    settings.RETORT_ALLOW_PRIVATE_ENDPOINTS = True
    services.register(owner=user, name="x", base_url=url, model="m")


# --- testing it


def said(response: Any) -> str:
    return re.sub(r"<[^>]+>|\s+", " ", response.content.decode())


def test_a_test_says_whether_the_model_is_there(page: Client, user: Any) -> None:
    with Stub(models=[{"id": "m", "owned_by": "vllm", "max_model_len": 4096}]) as stub:
        right = services.register(owner=user, name="a", base_url=stub.url, model="m", key=KEY)
        other = services.register(owner=user, name="b", base_url=stub.url, model="n")
        address = [reverse("endpoints:test", args=[each.pk]) for each in (right, other)]
        assert "serves m, with a context of 4,096" in said(page.post(address[0], follow=True))
        assert "does not list n; it has m" in said(page.post(address[1], follow=True))
    dead = said(page.post(address[0], follow=True))
    assert "no connection" in dead
    assert KEY not in dead


def test_a_test_never_hangs_and_never_reaches_a_private_network(
    page: Client, user: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stall(stub: Stub, request: web.Request, body: Body) -> web.StreamResponse:
        await stub._end.wait()
        raise web.HTTPOk

    monkeypatch.setattr(services, "probe", partial(services.probe, seconds=0.3))
    with Stub(listing=stall) as stub:
        found = services.register(owner=user, name="a", base_url=stub.url, model="m", key=KEY)
        address = reverse("endpoints:test", args=[found.pk])
        started = time.monotonic()
        assert "no answer within" in said(page.post(address, follow=True))
        assert time.monotonic() - started < 3
        asked = stub.requests
        settings.RETORT_ALLOW_PRIVATE_ENDPOINTS = False
        assert "private network" in said(page.post(address, follow=True))
        assert stub.requests == asked


# --- whose it is, and deleting it


def test_only_its_owner_or_an_admin_changes_tests_or_deletes_it(
    endpoint: Endpoint, admin: Any, django_user_model: Any
) -> None:
    other = Client()
    other.force_login(django_user_model.objects.create_user("eve", password="x"))
    address = endpoint.get_absolute_url()
    assert other.get(address).status_code == 200
    for way in (address, address + "test/", address + "delete/"):
        assert other.post(way, {"key": "mine", "concurrency": 1}).status_code == 403
        assert Client().post(way).status_code == 302
    assert 'type="password"' not in other.get(address).content.decode()
    endpoint.refresh_from_db()
    assert services.key_of(endpoint) == KEY
    root = Client()
    root.force_login(admin)
    assert root.post(address + "delete/").status_code == 302
    assert not Endpoint.objects.exists()


def test_a_get_changes_nothing(page: Client, endpoint: Endpoint) -> None:
    for name in ("test", "delete"):
        assert page.get(reverse(f"endpoints:{name}", args=[endpoint.pk])).status_code == 405
    assert Endpoint.objects.exists()


@pytest.mark.parametrize("state", State.values)
def test_deleting_is_refused_while_a_run_needs_it_and_names_the_run(
    page: Client, user: Any, endpoint: Endpoint, state: str
) -> None:
    run = make_run(user, "R1 on sums", Run.Kind.EVALUATION, state)
    make_stage(run, 0, "evaluate", "Evaluate", config={"endpoint": endpoint.pk, "engine": "openai"})
    text = said(page.post(reverse("endpoints:delete", args=[endpoint.pk]), follow=True))
    if state in ("finished", "failed", "cancelled"):
        assert not Endpoint.objects.exists()
        assert Checkpoint.objects.filter(name="served/r1").exists()
    else:
        assert "“R1 on sums”" in text
        assert Endpoint.objects.exists()


def test_deleting_keeps_what_was_measured_and_leaves_nothing_else(
    user: Any, endpoint: Endpoint
) -> None:
    problems = arithmetic(3)
    kept = make_evaluation(user, endpoint.checkpoint, make_benchmark(problems), problems)
    unused = services.register(owner=user, name="b", base_url="http://h/v1", model="m")
    for each in (endpoint, unused):
        services.delete(each, by=user)
    assert not Endpoint.objects.exists()
    assert list(Checkpoint.objects.values_list("name", flat=True)) == ["served/r1"]
    kept.refresh_from_db()
    assert kept.metrics

"""The audit log: what an entry holds, that it stays as it is, and for how long."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError, transaction
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.utils import timezone

from tests.webapp.samples import make_checkpoint
from webapp.core import audit
from webapp.core.addresses import address_of
from webapp.core.models import AuditEntry
from webapp.projects.access import first_project

pytestmark = pytest.mark.django_db

TOLD = "told"


def test_an_entry_says_who_did_what_to_which_thing(user: Any) -> None:
    checkpoint = make_checkpoint(user, "tiny")
    entry = audit.record(user, "checkpoint.delete", checkpoint, files=3)
    checkpoint.delete()
    entry.refresh_from_db()
    assert (entry.user_key, entry.user_name) == (user.pk, "ada")
    assert (entry.kind, entry.name) == ("checkpoint", "tiny")
    assert entry.project_key == first_project().pk
    assert (entry.through, entry.address) == ("command", "")
    assert entry.details == {"files": 3}


def test_an_entry_outlives_what_it_tells_of(user: Any) -> None:
    audit.record(user, "account.rename", user)
    user.delete()
    assert AuditEntry.objects.get().user_name == "ada"


def test_entries_are_never_changed(user: Any) -> None:
    entry = audit.record(user, "run.cancel")
    entry.action = "run.retry"
    for change in (
        entry.save,
        entry.delete,
        AuditEntry.objects.all().delete,
        lambda: AuditEntry.objects.update(user_name="eve"),
    ):
        with pytest.raises(DatabaseError, match="never changed"), transaction.atomic():
            change()
    assert AuditEntry.objects.get().action == "run.cancel"


def test_old_entries_go_and_no_others(user: Any, settings: Any) -> None:
    settings.RETORT_KEEP_AUDIT_DAYS = 10
    audit.record(user, "run.cancel")
    now = timezone.now()
    assert audit.forget_old(now + timedelta(days=9)) == 0
    assert audit.forget_old(now + timedelta(days=11)) == 1
    entry = audit.record(user, "run.cancel")
    with pytest.raises(DatabaseError, match="never changed"), transaction.atomic():
        entry.delete()  # pruning left no door open behind it
    settings.RETORT_KEEP_AUDIT_DAYS = 0
    assert audit.forget_old(now + timedelta(days=9999)) == 0


@pytest.mark.parametrize("name", ["password", "new_password", "token", "secret", "api_key"])
def test_secrets_are_refused(user: Any, name: str) -> None:
    with pytest.raises(ValueError, match="no secrets"):
        audit.record(user, "account.change", **{name: "x"})


def test_what_the_database_cannot_hold_is_marked_and_long_texts_are_cut(user: Any) -> None:
    entry = audit.record(user, "run.launch", tags=["a\x00b", "\ud800"], text="x" * 1000, n=2)
    entry.refresh_from_db()
    assert entry.details["tags"] == ["a\ufffdb", "?"]
    assert len(entry.details["text"]) == 200
    assert entry.details["n"] == 2


def test_a_deleted_thing_or_an_odd_action_is_a_mistake(user: Any) -> None:
    checkpoint = make_checkpoint(user, "tiny")
    checkpoint.delete()
    with pytest.raises(ValueError, match="before"):
        audit.record(user, "checkpoint.delete", checkpoint)
    with pytest.raises(ValueError, match="not named"):
        audit.record(user, "Deleted a checkpoint")


def test_the_request_tells_session_and_address(client: Any, user: Any) -> None:
    client.force_login(user)
    request = RequestFactory().get("/", REMOTE_ADDR="203.0.113.7")
    request.session = client.session

    def view(asked: HttpRequest) -> HttpResponse:
        audit.record(user, "run.cancel")
        audit.comes_through("token 3f2a91c0")
        audit.record(user, "run.retry")
        return HttpResponse(TOLD)

    assert audit.AuditMiddleware(view)(request).content == TOLD.encode()
    by_token, by_session = AuditEntry.objects.all()
    assert by_session.address == by_token.address == "203.0.113.7"
    key = client.session.session_key
    assert by_session.through == f"session {audit.session_name(key)}"
    assert key[:4] not in by_session.through
    assert by_token.through == "token 3f2a91c0"
    assert audit.record(user, "run.cancel").through == "command"


@pytest.mark.parametrize(
    ("proxies", "remote", "forwarded", "address"),
    [
        (0, "192.0.2.1", "203.0.113.7", "192.0.2.1"),
        (1, "192.0.2.1", "203.0.113.7", "203.0.113.7"),
        (1, "192.0.2.1", "198.51.100.1, 203.0.113.7", "203.0.113.7"),
        (2, "192.0.2.1", "1.1.1.1, 203.0.113.7, 198.51.100.1", "203.0.113.7"),
        (2, "192.0.2.1", "203.0.113.7", "192.0.2.1"),
        (1, "192.0.2.1", "<script>", ""),
        (0, "", "", ""),
        (0, "::ffff:192.0.2.1", "", "192.0.2.1"),
        (0, "2001:db8::1", "", "2001:db8::1"),
    ],
)
def test_who_asks_is_read_where_our_own_proxies_wrote_it(
    settings: Any, proxies: int, remote: str, forwarded: str, address: str
) -> None:
    settings.RETORT_PROXIES = proxies
    headers = {"HTTP_X_FORWARDED_FOR": forwarded} if forwarded else {}
    assert address_of(RequestFactory().get("/", REMOTE_ADDR=remote, **headers)) == address

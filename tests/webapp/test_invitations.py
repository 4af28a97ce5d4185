"""Invitations: a link works once, for a week, and lets nobody into anything else."""

from __future__ import annotations

import logging
import re
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.webapp.samples import text_of
from tests.webapp.test_projects import client_of, person
from webapp.core.models import AuditEntry, Session, User
from webapp.projects import invitations
from webapp.projects.access import first_project
from webapp.projects.invitation_views import AccountForm
from webapp.projects.models import Invitation, Membership, Project, Role

pytestmark = pytest.mark.django_db

PASSWORD = "a long enough password"


@pytest.fixture
def boss() -> User:
    return person("boss", labs=Role.ADMIN)


@pytest.fixture
def labs(boss: User) -> Project:
    return Project.objects.get(name="labs")


def invited(boss: User, labs: Project, role: Role = Role.OPERATOR) -> str:
    """The link's path."""
    _, link = invitations.invite(boss, labs, "Eve@Example.org", role)
    return link.removeprefix("http://127.0.0.1:8000")


def open_link(client: Client, path: str) -> Any:
    answer = client.get(path)
    assert answer.status_code == 302
    assert answer["Location"] == reverse("projects:invitation")
    return client.get(answer["Location"])


def join(client: Client, **values: str) -> Any:
    return client.post(reverse("projects:invitation"), values)


NEW = {"username": "eve", "password1": PASSWORD, "password2": PASSWORD}


def test_a_link_is_shown_once_where_no_mail_carries_it(boss: User, labs: Project) -> None:
    client = client_of(boss)
    answer = client.post(
        reverse("projects:invite", args=[labs.pk]), {"email": "eve@example.org", "role": "viewer"}
    )
    found = re.search(r"/projects/invitation/([\w-]{43})/", answer.content.decode())
    assert found is not None
    again = client.get(reverse("projects:detail", args=[labs.pk]))
    assert found[1] not in text_of(again)
    assert "eve@example.org" in text_of(again)
    assert found[1] not in str(Invitation.objects.values().get())
    assert found[1] not in str(list(AuditEntry.objects.values()))


def test_a_mail_carries_the_link_where_it_can(boss: User, labs: Project, settings: Any) -> None:
    settings.EMAIL_CONFIGURED = True
    Project.objects.filter(pk=labs.pk).update(name="labs\r\nBcc: x@example.org")
    labs.refresh_from_db()
    _, link = invitations.invite(boss, labs, "eve@example.org", Role.VIEWER)
    assert link == ""
    [sent] = mail.outbox
    assert sent.to == ["eve@example.org"]
    assert "\n" not in sent.subject
    assert re.search(r"^http://127\.0\.0\.1:8000/projects/invitation/[\w-]{43}/$", sent.body, re.M)


def test_a_newcomer_joins_that_project_only(boss: User, labs: Project) -> None:
    assert first_project() != labs
    client = Client()
    assert "Make an account" in text_of(open_link(client, invited(boss, labs)))
    assert join(client, **NEW).status_code == 302
    eve = User.objects.get(username="eve")
    assert eve.email == "eve@example.org"
    assert not eve.is_staff
    [membership] = Membership.objects.filter(user=eve)
    assert (membership.project, membership.role) == (labs, "operator")
    assert client.get(reverse("projects:detail", args=[labs.pk])).status_code == 200  # signed in
    assert {"account.make", "invitation.accept"} <= set(
        AuditEntry.objects.filter(user_key=eve.pk).values_list("action", flat=True)
    )


def test_bad_accounts_are_not_made(boss: User, labs: Project) -> None:
    client = Client()
    open_link(client, invited(boss, labs))
    for bad in (
        {"username": "BOSS"},
        {"username": "e v e"},
        {"password1": "12345678", "password2": "12345678"},
        {"password2": "another password"},
    ):
        assert join(client, **(NEW | bad)).status_code == 400, bad
    assert User.objects.count() == 1
    extra = {"is_staff": "on", "is_superuser": "on", "role": "admin", "project": "1"}
    assert join(client, **(NEW | extra)).status_code == 302
    eve = User.objects.get(username="eve")
    assert (eve.is_staff, eve.is_superuser) == (False, False)
    assert Membership.objects.get(user=eve).role == "operator"


def test_whoever_is_signed_in_joins_with_that_account(boss: User, labs: Project) -> None:
    mallory = person("mallory")
    client = client_of(mallory)
    page = text_of(open_link(client, invited(boss, labs)))
    assert "You are signed in as <strong>mallory</strong>" in page
    assert join(client).status_code == 302
    assert Membership.objects.get(user=mallory).project == labs
    assert User.objects.count() == 2


def test_somebody_who_signs_in_on_the_way_joins(boss: User, labs: Project, user: Any) -> None:
    client = Client()
    page = text_of(open_link(client, invited(boss, labs)))
    assert f"?next={reverse('projects:invitation')}" in page
    client.login(username="ada", password=PASSWORD)
    assert "ada" in text_of(client.get(reverse("projects:invitation")))
    join(client)
    assert Membership.objects.filter(user=user, project=labs).exists()


def test_a_higher_role_stays(boss: User, labs: Project) -> None:
    client = client_of(boss)
    open_link(client, invited(boss, labs, Role.VIEWER))
    join(client)
    assert Membership.objects.get(user=boss).role == Role.ADMIN


def use_it(boss: User, labs: Project, path: str) -> None:
    client = client_of(person("first"))
    open_link(client, path)
    join(client)


def run_out(boss: User, labs: Project, path: str) -> None:
    Invitation.objects.update(expires_at=timezone.now() - timedelta(seconds=1))


def revoke(boss: User, labs: Project, path: str) -> None:
    pk = Invitation.objects.get().pk
    client_of(boss).post(reverse("projects:revoke-invitation", args=[labs.pk, pk]))


def invite_again(boss: User, labs: Project, path: str) -> None:
    invited(boss, labs)


def demote(boss: User, labs: Project, path: str) -> None:
    Membership.objects.filter(user=boss).update(role=Role.OPERATOR)


def deactivate(boss: User, labs: Project, path: str) -> None:
    User.objects.filter(pk=boss.pk).update(is_active=False)


def delete_sender(boss: User, labs: Project, path: str) -> None:
    boss.delete()


@pytest.mark.parametrize(
    "end", [use_it, run_out, revoke, invite_again, demote, deactivate, delete_sender]
)
def test_an_ended_link_opens_nothing(boss: User, labs: Project, end: Any) -> None:
    path = invited(boss, labs)
    late = Client()
    open_link(late, path)  # who had the page open is too late as well
    end(boss, labs, path)
    before = User.objects.count()
    assert join(late, **NEW).status_code == 404
    answer = open_link(Client(), path)
    unknown = open_link(Client(), reverse("projects:invitation-link", args=["A" * 43]))
    assert answer.status_code == unknown.status_code == 404
    nonces = r'nonce="[^"]*"|csrf[^>]*|x-csrftoken[^>]*'
    told = [re.sub(nonces, "", each.content.decode()) for each in (answer, unknown)]
    assert told[0] == told[1]
    assert User.objects.count() == before


def test_a_made_up_link_leaves_no_session(boss: User, labs: Project) -> None:
    stranger, before = Client(), Session.objects.count()
    answer = stranger.get(reverse("projects:invitation-link", args=["x" * 43]))
    assert answer.status_code == 302
    assert not stranger.cookies
    assert stranger.get(answer["Location"]).status_code == 404
    assert Session.objects.count() == before


def test_no_token_is_logged(boss: User, labs: Project, caplog: Any) -> None:
    path = invited(boss, labs)
    with caplog.at_level(logging.DEBUG):
        client = Client()
        open_link(client, path)
        join(client, **NEW)
    assert path.split("/")[-2] not in caplog.text
    assert "/projects/invitation/[secret]/" in caplog.text


@pytest.mark.parametrize("token", ["x" * 43, "c9abc1-" + "0a" * 16])
def test_a_link_without_its_last_slash_is_logged_without_its_token(token: str, caplog: Any) -> None:
    """As mail programs make of it; no view is found for it yet."""
    with caplog.at_level(logging.DEBUG):
        assert Client().get(f"/projects/invitation/{token}").status_code == 301
        Client().get(f"/accounts/reset/MQ/{token}")
    assert token not in caplog.text


def test_a_name_that_is_taken_in_this_moment_is_told_of(
    boss: User, labs: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The form sent twice at once: the first has been looked at, and not yet written."""
    client = Client()
    open_link(client, invited(boss, labs))
    User.objects.create(username="eve")
    monkeypatch.setattr(User, "validate_unique", lambda *_, **__: None)
    monkeypatch.setattr(AccountForm, "clean_username", lambda self: self.cleaned_data["username"])
    answer = join(client, **NEW)
    assert (answer.status_code, User.objects.filter(username="eve").count()) == (400, 1)
    assert "choose another" in answer.content.decode()


def test_an_admin_revokes_own_projects_invitations_only(boss: User, labs: Project) -> None:
    invited(boss, labs)
    pk = Invitation.objects.get().pk
    thief = person("thief", theirs=Role.ADMIN)
    theirs = Project.objects.get(name="theirs")
    address = reverse("projects:revoke-invitation", args=[theirs.pk, pk])
    assert client_of(thief).post(address).status_code == 404
    assert Invitation.objects.get().revoked_at is None


def test_old_invitations_go(boss: User, labs: Project) -> None:
    invited(boss, labs)
    assert invitations.forget_old() == 0
    Invitation.objects.update(expires_at=timezone.now() - timedelta(days=100))
    assert invitations.forget_old() == 1

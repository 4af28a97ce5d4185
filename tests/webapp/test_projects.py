"""Projects and their members: who may change what, and that somebody always may."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import PermissionDenied
from django.http import Http404
from django.test import Client
from django.urls import reverse

from tests.webapp.samples import make_checkpoint, text_of
from webapp.core.errors import UserError
from webapp.core.models import AuditEntry, User
from webapp.projects import services
from webapp.projects.access import first_project
from webapp.projects.models import Membership, Project, Role

pytestmark = pytest.mark.django_db


def person(name: str, **roles: Role) -> User:
    """Somebody who is in the named projects only."""
    made = User.objects.create(username=name)
    for project, role in roles.items():
        found, _ = Project.objects.get_or_create(name=project)
        Membership.objects.create(project=found, user=made, role=role)
    return made


def client_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def labs() -> Project:
    return Project.objects.get_or_create(name="labs")[0]


def url(name: str, *args: int) -> str:
    return reverse(f"projects:{name}", args=args)


def test_the_pages_show_what_one_sees_and_may_do(labs: Project, admin: User) -> None:
    Project.objects.create(name="closed")
    Project.objects.create(name="garden", open=True)
    boss, hand = person("boss", labs=Role.ADMIN), person("hand", labs=Role.OPERATOR)
    listed = text_of(client_of(hand).get(url("index")))
    assert "labs" in listed
    assert "garden" in listed
    assert "closed" not in listed
    assert "Make another" not in listed
    page = text_of(client_of(hand).get(url("detail", labs.pk)))
    assert "boss" in page
    assert "Invite somebody" not in page
    assert "Invite somebody" in text_of(client_of(boss).get(url("detail", labs.pk)))
    assert "Delete the project" not in text_of(client_of(boss).get(url("detail", labs.pk)))
    assert "Delete the project" in text_of(client_of(admin).get(url("detail", labs.pk)))
    garden = Project.objects.get(name="garden")
    person("gardener", garden=Role.ADMIN)
    assert "gardener" not in text_of(client_of(hand).get(url("detail", garden.pk)))


def test_administrators_make_rename_and_delete(labs: Project, admin: User) -> None:
    client = client_of(admin)
    assert client.post(url("index"), {"name": "new", "open": "on"}).status_code == 302
    new = Project.objects.get(name="new")
    assert new.open
    assert Membership.objects.get(project=new).user == admin
    assert client.post(url("change", new.pk), {"name": "newer"}).status_code == 302
    new.refresh_from_db()
    assert (new.name, new.open) == ("newer", False)
    taken = client.post(url("change", new.pk), {"name": "labs"})
    assert taken.status_code == 400
    assert "choose another" in taken.content.decode()
    assert client.post(url("delete", new.pk)).status_code == 302
    assert not Project.objects.filter(pk=new.pk).exists()
    told = list(AuditEntry.objects.order_by("pk").values_list("action", "name"))
    assert told == [("project.make", "new"), ("project.change", "newer"),
                    ("project.delete", "newer")]  # fmt: skip


def test_a_project_that_holds_something_or_is_the_only_one_stays(admin: User, user: Any) -> None:
    first = first_project()
    other = Project.objects.create(name="other")
    make_checkpoint(user, "tiny", project=other)
    with pytest.raises(UserError, match="1 checkpoints"):
        services.delete(admin, other)
    other.checkpoint_set.all().delete()
    services.delete(admin, other)
    with pytest.raises(UserError, match="only one"):
        services.delete(admin, first)


def test_the_last_admin_stays_unless_an_administrator_says_so(labs: Project, admin: User) -> None:
    boss = person("boss", labs=Role.ADMIN)
    gone = person("gone", labs=Role.ADMIN)
    User.objects.filter(pk=gone.pk).update(is_active=False)  # decides about nothing any more
    own = Membership.objects.get(user=boss)
    for change in (
        lambda: services.remove(boss, own),
        lambda: services.set_role(boss, own, Role.VIEWER),
    ):
        with pytest.raises(UserError, match="last admin"):
            change()
    person("second", labs=Role.ADMIN)
    services.set_role(boss, own, Role.VIEWER)
    with pytest.raises(PermissionDenied):  # no admin any more
        services.set_role(boss, own, Role.ADMIN)
    services.remove(boss, own)  # anybody may leave
    services.remove(admin, Membership.objects.get(user__username="second"))
    assert [each.user.username for each in services.members(labs)] == ["gone"]


def test_what_somebody_else_changed_meanwhile_is_not_undone(labs: Project) -> None:
    """A membership that was read before another admin's change: gone, or an admin's by now."""
    ann, bob = person("ann", labs=Role.ADMIN), person("bob", labs=Role.OPERATOR)
    stale = Membership.objects.get(user=bob)
    Membership.objects.filter(user=bob).update(role=Role.ADMIN)
    Membership.objects.filter(user=ann).delete()
    with pytest.raises(UserError, match="last admin"):
        services.remove(bob, stale)
    before = AuditEntry.objects.count()
    Membership.objects.create(project=labs, user=ann, role=Role.ADMIN)
    Membership.objects.filter(user=bob).delete()
    for change in (
        lambda: services.set_role(ann, stale, Role.VIEWER),
        lambda: services.remove(ann, stale),
    ):
        with pytest.raises(Http404):
            change()
    assert AuditEntry.objects.count() == before


def test_members_cannot_do_what_admins_do(labs: Project) -> None:
    boss, hand = person("boss", labs=Role.ADMIN), person("hand", labs=Role.OPERATOR)
    stranger = person("stranger")
    posts = [
        url("change", labs.pk), url("delete", labs.pk), url("invite", labs.pk),
        url("add-member", labs.pk), url("role", labs.pk, boss.pk),
        url("remove-member", labs.pk, boss.pk),
    ]  # fmt: skip
    data = {"name": "x", "email": "x@example.org", "role": "admin", "username": "hand"}
    before = list(Membership.objects.values())
    for address in posts:
        assert client_of(hand).post(address, data).status_code == 403, address
        assert client_of(stranger).post(address, data).status_code == 404, address
    for name in ("change", "delete", "add-member"):
        assert client_of(boss).post(url(name, labs.pk), data).status_code == 403, name
    assert client_of(hand).post(url("index"), {"name": "mine"}).status_code == 403
    assert list(Membership.objects.values()) == before
    assert not AuditEntry.objects.exists()


def test_an_administrator_adds_an_account(labs: Project, admin: User) -> None:
    eve = person("eve")
    client = client_of(admin)
    address = url("add-member", labs.pk)
    assert client.post(address, {"username": "eve", "role": "viewer"}).status_code == 302
    assert Membership.objects.get(project=labs, user=eve).role == Role.VIEWER
    again = client.post(address, {"username": "eve", "role": "admin"})
    assert "a member already" in again.content.decode()
    nobody = client.post(address, {"username": "nobody\x00", "role": "admin"})
    assert nobody.status_code == 400


def test_what_a_member_made_stays_when_they_go(labs: Project, admin: User) -> None:
    hand = person("hand", labs=Role.OPERATOR)
    made = make_checkpoint(hand, "tiny", project=labs)
    services.remove(admin, Membership.objects.get(user=hand))
    made.refresh_from_db()
    assert made.owner == hand
    assert client_of(hand).get(made.get_absolute_url()).status_code == 404


def test_projects_are_listed_by_name(admin: User) -> None:
    for name in ("beta", "Alpha", "gamma"):
        services.make(admin, name)
    page = text_of(client_of(admin).get("/projects/"))
    places = [page.index(f">{name}</a>") for name in ("Alpha", "beta", "gamma")]
    assert places == sorted(places)

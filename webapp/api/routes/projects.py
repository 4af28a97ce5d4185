"""Projects, and who does what in them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from pydantic import Field

from webapp.api.auth import ADMIN, require_staff
from webapp.api.forms import cleaned
from webapp.api.framework import Query, Router, Schema
from webapp.api.paging import Page, Paged, page
from webapp.api.schemas import In, Name, Text
from webapp.core.models import User
from webapp.core.users import signed_in
from webapp.projects import invitations, services
from webapp.projects.access import has_role, projects_of, role_in
from webapp.projects.models import Invitation, Membership, Project, Role
from webapp.projects.views import InvitationForm

router = Router(tags=["projects"])


class MemberOut(Schema):
    """A person in a project."""

    id: int
    username: str
    role: Role


class ProjectOut(Schema):
    """A project, and one's own role in it."""

    id: int
    name: str
    open: bool
    role: Role | None


class ProjectDetail(ProjectOut):
    """A project with its members, whom only members and administrators see."""

    members: list[MemberOut]


class ProjectIn(In):
    """A project's name, and whether everyone who signs in is a viewer of it."""

    name: Name
    open: bool = False


class MemberIn(In):
    """Somebody with an account, and their role."""

    username: Name
    role: Role


class RoleIn(In):
    """Another role."""

    role: Role


class InvitationOut(Schema):
    """A link to join a project."""

    id: int
    email: str
    role: Role
    created_at: datetime
    expires_at: datetime


class NewInvitation(InvitationOut):
    """The same with its link, where no mail carries it."""

    link: str


class InvitationIn(In):
    """Whom, and in which role."""

    email: Text = Field(max_length=254)
    role: Role


def _seen(request: HttpRequest, pk: int) -> Project:
    return get_object_or_404(projects_of(signed_in(request)), pk=pk)


def _managed(request: HttpRequest, pk: int) -> Project:
    project = _seen(request, pk)
    if not has_role(signed_in(request), project.pk, Role.ADMIN):
        raise PermissionDenied
    return project


def _out(person: User, project: Project) -> dict[str, Any]:
    return {
        "id": project.pk, "name": project.name, "open": project.open,
        "role": role_in(person, project.pk),
    }  # fmt: skip


def _member(membership: Membership) -> dict[str, Any]:
    return {
        "id": membership.pk, "username": membership.user.get_username(), "role": membership.role,
    }  # fmt: skip


@router.get("", response=Page[ProjectOut])
def projects_list(request: HttpRequest, wanted: Query[Paged]) -> dict[str, Any]:
    """The projects that one sees."""
    person = signed_in(request)
    found = page(projects_of(person), wanted)
    return {**found, "items": [_out(person, each) for each in found["items"]]}


@router.get("/{int:pk}", response=ProjectDetail)
def projects_one(request: HttpRequest, pk: int) -> dict[str, Any]:
    """A project; its members only for those who are in it."""
    person, project = signed_in(request), _seen(request, pk)
    inside = person.is_staff or Membership.objects.filter(project=project, user=person).exists()
    members = services.members(project) if inside else []
    return _out(person, project) | {"members": [_member(each) for each in members]}


@router.post("", response={201: ProjectOut}, auth=ADMIN)
def projects_make(request: HttpRequest, body: ProjectIn) -> Any:
    """Make a project; whoever makes it is its admin."""
    person = require_staff(request)
    return _out(person, services.make(person, body.name, is_open=body.open))


@router.put("/{int:pk}", response=ProjectOut, auth=ADMIN)
def projects_change(request: HttpRequest, pk: int, body: ProjectIn) -> dict[str, Any]:
    """Rename it, open or close it."""
    person, project = require_staff(request), _seen(request, pk)
    services.change(person, project, body.name, is_open=body.open)
    return _out(person, project)


@router.delete("/{int:pk}", response={204: None}, auth=ADMIN)
def projects_delete(request: HttpRequest, pk: int) -> None:
    """Take an empty project away."""
    services.delete(require_staff(request), _seen(request, pk))


@router.post("/{int:pk}/members", response={201: MemberOut}, auth=ADMIN)
def members_add(request: HttpRequest, pk: int, body: MemberIn) -> Any:
    """Make somebody who has an account a member."""
    return _member(
        services.add(require_staff(request), _seen(request, pk), body.username, body.role)
    )


@router.put("/{int:pk}/members/{int:member}", response=MemberOut, auth=ADMIN)
def members_role(request: HttpRequest, pk: int, member: int, body: RoleIn) -> dict[str, Any]:
    """Give a member another role."""
    membership = get_object_or_404(_managed(request, pk).memberships.all(), pk=member)
    services.set_role(signed_in(request), membership, body.role)
    return _member(membership)


@router.delete("/{int:pk}/members/{int:member}", response={204: None}, auth=ADMIN)
def members_remove(request: HttpRequest, pk: int, member: int) -> None:
    """Take somebody out of the project; what they made in it stays."""
    membership = get_object_or_404(_managed(request, pk).memberships.all(), pk=member)
    services.remove(signed_in(request), membership)


# --- invitations


@router.get("/{int:pk}/invitations", response=Page[InvitationOut], auth=ADMIN)
def invitations_list(request: HttpRequest, pk: int, wanted: Query[Paged]) -> dict[str, Any]:
    """Invitations that nobody used or revoked, and that have not run out."""
    return page(invitations.open_ones(_managed(request, pk)), wanted)


@router.post("/{int:pk}/invitations", response={201: NewInvitation}, auth=ADMIN)
def invitations_make(request: HttpRequest, pk: int, body: InvitationIn) -> Any:
    """Invite somebody by mail; without a mail server the link is shown, this once."""
    project = _managed(request, pk)
    given = cleaned(InvitationForm({"email": body.email, "role": body.role}))
    row, link = invitations.invite(signed_in(request), project, given["email"], Role(given["role"]))
    names = InvitationOut.model_fields
    return {name: getattr(row, name) for name in names} | {"link": link}


@router.delete("/{int:pk}/invitations/{int:invitation}", response={204: None}, auth=ADMIN)
def invitations_revoke(request: HttpRequest, pk: int, invitation: int) -> None:
    """Have an invitation's link open nothing any more."""
    rows = Invitation.objects.filter(project=_managed(request, pk))
    invitations.revoke(signed_in(request), get_object_or_404(rows, pk=invitation))

"""Making projects, and saying who does what in them."""

from __future__ import annotations

from django.core.exceptions import PermissionDenied
from django.db import IntegrityError, transaction
from django.shortcuts import get_object_or_404

from webapp.checkpoints.models import Checkpoint, Upload
from webapp.core import audit
from webapp.core.errors import UserError
from webapp.core.models import User
from webapp.core.text import storable
from webapp.projects.access import has_role
from webapp.projects.models import AT_LEAST, Membership, Project, Role
from webapp.runs.models import Run

LONGEST_NAME = 100


def make(actor: User, name: str, *, is_open: bool = False) -> Project:
    """A new project; the administrator who makes it is its admin. Raises UserError."""
    _require_administrator(actor)
    with transaction.atomic():
        project = Project(name=_named(name), open=is_open)
        _save(project)
        Membership.objects.create(project=project, user=actor, role=Role.ADMIN)
        audit.record(actor, "project.make", project, open=is_open)
    return project


def change(actor: User, project: Project, name: str, *, is_open: bool) -> None:
    """Rename it, open or close it. Raises UserError."""
    _require_administrator(actor)
    with transaction.atomic():
        before = Project.objects.select_for_update().get(pk=project.pk)
        project.name, project.open = _named(name), is_open
        _save(project)
        audit.record(actor, "project.change", project, name_before=before.name, open=is_open)


def delete(actor: User, project: Project) -> None:
    """Take an empty project away. Raises UserError where it is not, or is the only one."""
    _require_administrator(actor)
    with transaction.atomic():
        # Also shuts out whoever is about to put something in: a foreign key locks this row.
        every = list(
            Project.objects.select_for_update().order_by("pk").values_list("pk", flat=True)
        )
        if held := {what: count for what, count in contents(project).items() if count}:
            kinds = ", ".join(f"{count} {what}" for what, count in held.items())
            raise UserError(f"project: {project.name!r} holds {kinds}; delete them first.")
        if len(every) == 1:
            raise UserError("project: it is the only one; rename it instead.")
        audit.record(actor, "project.delete", project)
        project.delete()


def contents(project: Project) -> dict[str, int]:
    """How much of what is in it, whose page one may not see included."""
    found = {
        model._meta.verbose_name_plural: model._base_manager.filter(project=project).count()
        for model in (Checkpoint, Upload, Run)
    }
    return {str(name): count for name, count in found.items()}


def add(actor: User, project: Project, username: str, role: Role) -> Membership:
    """Make somebody who has an account a member; administrators know who has one.

    Raises UserError where there is no such account, or it is a member already.
    """
    _require_administrator(actor)
    user = User.objects.filter(username=storable(username.strip()), is_active=True).first()
    if user is None:
        raise UserError("username: nobody active has this name; invite them instead.", "username")
    with transaction.atomic():
        membership, is_new = Membership.objects.get_or_create(
            project=project, user=user, defaults={"role": role}
        )
        if not is_new:
            raise UserError("username: a member already; change the role below.", "username")
        audit.record(actor, "member.add", user, project=project, role=role)
    return membership


def join(project: Project, user: User, role: Role) -> Membership:
    """Make the person a member with at least ``role``; a higher role that they have stays."""
    membership, is_new = Membership.objects.select_for_update().get_or_create(
        project=project, user=user, defaults={"role": role}
    )
    if not is_new and Role(membership.role) not in AT_LEAST[role]:
        membership.role = role
        membership.save(update_fields=["role"])
    return membership


def set_role(actor: User, membership: Membership, role: Role) -> None:
    """Give a member another role. Raises UserError where nobody would be admin any more."""
    with transaction.atomic():
        _lock(actor, membership)
        if role != Role.ADMIN:
            _keep_an_admin(actor, membership)
        before, membership.role = membership.role, role
        membership.save(update_fields=["role"])
        audit.record(
            actor, "member.role", membership.user,
            project=membership.project, role=role, role_before=before,
        )  # fmt: skip


def remove(actor: User, membership: Membership) -> None:
    """Take somebody out of the project, or leave it; what they made in it stays.

    Raises UserError where nobody would be admin any more.
    """
    with transaction.atomic():
        _lock(actor, membership, or_oneself=True)
        _keep_an_admin(actor, membership)
        name = "member.leave" if membership.user_id == actor.pk else "member.remove"
        audit.record(actor, name, membership.user, project=membership.project, role=membership.role)
        membership.delete()


def members(project: Project) -> list[Membership]:
    """Who is in it, by name."""
    return list(project.memberships.select_related("user").order_by("user__username"))


def _lock(actor: User, membership: Membership, *, or_oneself: bool = False) -> None:
    """Let one change of a project's members happen after the other.

    Raises PermissionDenied where the actor is no admin of it (any more), and Http404 where the
    membership is gone; its role is the present one afterwards.
    """
    Project.objects.select_for_update().get(pk=membership.project_id)
    membership.role = get_object_or_404(Membership, pk=membership.pk).role
    if or_oneself and membership.user_id == actor.pk:
        return
    if not has_role(actor, membership.project_id, Role.ADMIN):
        raise PermissionDenied


def _keep_an_admin(actor: User, membership: Membership) -> None:
    if actor.is_staff or membership.role != Role.ADMIN:
        return
    others = Membership.objects.filter(
        project=membership.project_id, role=Role.ADMIN, user__is_active=True
    ).exclude(pk=membership.pk)
    if not others.exists():
        raise UserError(
            f"role: {membership.user.get_username()} is the last admin of this project; make "
            "another member an admin first.",
            "role",
        )


def _require_administrator(actor: User) -> None:
    if not actor.is_staff:
        raise PermissionDenied


def _named(name: str) -> str:
    name = storable(" ".join(name.split()))
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise UserError(f"name: give one of at most {LONGEST_NAME} characters.", "name")
    return name


def _save(project: Project) -> None:
    try:
        with transaction.atomic():
            project.save()
    except IntegrityError:
        raise UserError(
            f"name: there is a project {project.name!r} already; choose another.", "name"
        ) from None

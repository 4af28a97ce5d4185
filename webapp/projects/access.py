"""Who sees what, and who decides about it: every page, call and download asks here.

What somebody may not see does not exist for them (404); what they see but may not do is refused
(403). The installation's administrators (``is_staff``) are admins of every project.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

from django.core.exceptions import PermissionDenied
from django.db.models import Model, Q, QuerySet

from webapp.core.errors import UserError
from webapp.core.models import User
from webapp.projects.models import AT_LEAST, Membership, Project, Role

Rows = TypeVar("Rows", bound=Model)

FIRST_PROJECT = "Main"
ELSEWHERE = "in a project that you are not in"  # stands for a name that a person may not read


class Owned(Protocol):
    """A row that somebody made in a project."""

    @property
    def owner_id(self) -> int:
        """Who made it."""

    @property
    def project_id(self) -> int:
        """Where it is."""


def first_project() -> Project:
    """The project that an installation begins with: its oldest."""
    project = Project.objects.order_by("pk").first()
    return project or Project.objects.get_or_create(name=FIRST_PROJECT)[0]


def projects_of(user: User, role: Role = Role.VIEWER) -> QuerySet[Project]:
    """The projects in which the person has at least ``role``; everyone views the open ones."""
    if user.is_staff:
        return Project.objects.all()
    held = Membership.objects.filter(user=user, role__in=AT_LEAST[role])
    wanted = Q(pk__in=held.values("project"))
    found = Project.objects.filter(wanted | Q(open=True) if role == Role.VIEWER else wanted)
    return found if user.limited_to is None else found.filter(pk=user.limited_to)


def seen_by(user: User, rows: QuerySet[Rows], through: str = "project") -> QuerySet[Rows]:
    """Those of ``rows`` that the person may look at; ``through`` is the way to their project."""
    if user.is_staff:
        return rows
    return rows.filter(**{f"{through}__in": projects_of(user).order_by().values("pk")})


def seen_projects(user: User) -> frozenset[int]:
    """The keys of the projects that the person views, to tell many things' names by or not."""
    return frozenset(projects_of(user).values_list("pk", flat=True))


def role_in(user: User, project_id: int) -> Role | None:
    """The person's role in a project; None where they do not see it."""
    if user.is_staff:
        return Role.ADMIN
    if user.limited_to not in (None, project_id):
        return None
    held = Membership.objects.filter(user=user, project=project_id).values_list("role", flat=True)
    if (role := held.first()) is not None:
        return Role(role)
    return Role.VIEWER if Project.objects.filter(pk=project_id, open=True).exists() else None


def has_role(user: User, project_id: int, role: Role) -> bool:
    """Whether the person has at least ``role`` in a project."""
    return role_in(user, project_id) in AT_LEAST[role]


def may_manage(user: User, thing: Owned) -> bool:
    """Whether the person decides what becomes of it: its owner, and admins of its project."""
    role = role_in(user, thing.project_id)
    return role == Role.ADMIN or (role == Role.OPERATOR and thing.owner_id == user.pk)


def managed_by(user: User, rows: QuerySet[Rows]) -> QuerySet[Rows]:
    """Those of ``rows`` (with owner and project) that :func:`may_manage` lets the person decide."""
    if user.is_staff:
        return rows
    working, ruled = (
        projects_of(user, role).order_by().values("pk") for role in (Role.OPERATOR, Role.ADMIN)
    )
    return rows.filter(Q(owner=user, project__in=working) | Q(project__in=ruled))


def may_use(user: User, project: Project) -> bool:
    """Whether the person can launch something with what is in this project.

    That is in the project itself or, where it is open, in any other one that they work in.
    """
    if project.open:
        return works_somewhere(user)
    return has_role(user, project.pk, Role.OPERATOR)


def works_somewhere(user: User) -> bool:
    """Whether there is a project that takes new things from the person."""
    return user.is_staff or projects_of(user, Role.OPERATOR).exists()


def require_place(user: User) -> None:
    """Raise PermissionDenied, with a sentence, where the person may add nothing anywhere."""
    if not works_somewhere(user):
        raise PermissionDenied(
            "You may look at things here, but add none: ask an admin of a project to make you an "
            "operator of it."
        )


def require(user: User, project_id: int, role: Role) -> None:
    """Raise PermissionDenied where the person has not at least ``role`` in a project."""
    if not has_role(user, project_id, role):
        raise PermissionDenied


def place_for(user: User, project: Project | None = None) -> Project:
    """Where something new of this person's goes: ``project``, or the first they work in.

    Raises UserError where they are no operator of it, or of any.
    """
    if project is not None:
        if not has_role(user, project.pk, Role.OPERATOR):
            raise UserError(
                f"project: {project.name!r} takes nothing new from you; ask one of its admins to "
                "make you an operator.",
                "project",
            )
        return project
    if user.is_staff:
        return first_project()
    found = projects_of(user, Role.OPERATOR).order_by("pk").first()
    if found is None:
        raise UserError(
            "project: you are an operator of none; ask an admin of a project to make you one.",
            "project",
        )
    return found

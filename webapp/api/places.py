"""Where something new goes, as a caller names it: by the project's key."""

from __future__ import annotations

from webapp.core.errors import UserError
from webapp.core.models import User
from webapp.projects.access import projects_of
from webapp.projects.models import Project, Role


def place(person: User, key: int | None) -> Project | None:
    """The project, where the person may add to it; None where none was named.

    Raises UserError, with the same sentence where there is no such project.
    """
    if key is None:
        return None
    found = projects_of(person, Role.OPERATOR).filter(pk=key).first()
    if found is None:
        raise UserError("project: you work in none with this number; choose another.", "project")
    return found

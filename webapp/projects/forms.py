"""Where something new goes, as a field of the forms that make it."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING

from django import forms
from django.db.models import QuerySet

from webapp.core.errors import UserError
from webapp.core.models import User
from webapp.projects.access import projects_of
from webapp.projects.models import Project, Role

if TYPE_CHECKING:  # no generic when it runs
    _ProjectField = forms.ModelChoiceField[Project]
else:
    _ProjectField = forms.ModelChoiceField


class PlaceField(_ProjectField):
    """One of the projects in which a person works."""

    def __init__(self, places: QuerySet[Project], help_text: str) -> None:
        super().__init__(places, label="Project", empty_label=None, help_text=help_text)
        self.error_messages |= {
            "required": "Project: choose one.",
            "invalid_choice": "Project: you work in none of that name (any more); choose another.",
        }


def add_place(
    fields: MutableMapping[str, forms.Field],
    user: User,
    help_text: str = "Who is in it sees this; where it is open, everybody.",
) -> Project | None:
    """Ask where it goes, in the field ``project``; only of a person who works in several.

    Returns the one in which the others work; None where they are asked, or work in none.
    """
    places = projects_of(user, Role.OPERATOR)
    found = list(places.order_by("pk")[:2])
    if len(found) > 1:
        fields["project"] = PlaceField(places, help_text)
        fields["project"].initial = found[0]
    return found[0] if len(found) == 1 else None


def chosen_place(user: User, key: str) -> Project | None:
    """The project that a script sent as that field; None where it sent none. Raises UserError."""
    if not key:
        return None
    try:
        found: Project = PlaceField(projects_of(user, Role.OPERATOR), "").clean(key)
    except forms.ValidationError as error:
        raise UserError(error.messages[0], "project") from None
    return found

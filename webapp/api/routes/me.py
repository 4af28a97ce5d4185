"""Who asks, and what they may do."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.http import HttpRequest
from pydantic import Field

from webapp.api.auth import token_of
from webapp.api.framework import Router, Schema
from webapp.checkpoints.uploads import used_bytes
from webapp.core.users import signed_in
from webapp.projects.access import projects_of, role_in

router = Router(tags=["me"])


class Place(Schema):
    """A project, and one's role in it."""

    id: int
    name: str
    role: str


class Me(Schema):
    """Who asks."""

    username: str
    email: str
    administrator: bool = Field(description="Of the installation: admin in every project.")
    projects: list[Place]
    scope: str | None = Field(description="Of the token; null: a session.")
    expires_at: datetime | None = Field(description="The token's end.")
    used_bytes: int = Field(description="What one's checkpoints, uploads and chats take.")


@router.get("", response=Me)
def me(request: HttpRequest) -> dict[str, Any]:
    """Who the token speaks for, and where they may work."""
    person, token = signed_in(request), token_of(request)
    return {
        "username": person.get_username(),
        "email": person.email,
        "administrator": person.is_staff,
        "projects": [
            {"id": each.pk, "name": each.name, "role": str(role_in(person, each.pk))}
            for each in projects_of(person)
        ],
        "scope": None if token is None else token.scope,
        "expires_at": None if token is None else token.expires_at,
        "used_bytes": used_bytes(person),
    }

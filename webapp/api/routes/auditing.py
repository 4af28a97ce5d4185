"""The audit log."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from django.http import HttpRequest
from pydantic import Field

from webapp.api.auth import ADMIN
from webapp.api.framework import Query, Router, Schema
from webapp.api.paging import Page, Paged, page
from webapp.api.schemas import Name
from webapp.core.audit_views import Wanted, seen_entries
from webapp.core.users import signed_in

router = Router(tags=["audit"])


class EntryOut(Schema):
    """Who did what to which thing, and whence."""

    id: int
    at: datetime
    user_name: str
    through: str
    address: str
    action: str
    kind: str
    key: str
    name: str
    project_name: str
    details: dict[str, Any]


class EntriesWanted(Paged):
    """What is looked for."""

    person: Name = Field("", description="A part of a user name.")
    action: Name = Field("", description="How it begins: run.cancel, or run.")
    thing: Name = Field("", description="A part of its name.")
    project: str = Field("", max_length=20, description="A project's id, or none: in no project.")
    since: date | None = None
    until: date | None = Field(None, description="The last day.")


@router.get("", response=Page[EntryOut], auth=ADMIN)
def audit_list(request: HttpRequest, wanted: Query[EntriesWanted]) -> dict[str, Any]:
    """The newest first: all of it for administrators, a project's for its admins."""
    names = ("person", "action", "thing", "project", "since", "until")
    chosen = Wanted.of({name: str(getattr(wanted, name) or "") for name in names})
    return page(chosen.among(seen_entries(signed_in(request))), wanted)

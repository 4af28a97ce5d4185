"""The audit log: all of it for administrators, a project's for its admins."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from evaluator.spreadsheet import Cell, csv_text
from webapp.core.models import AuditEntry, User
from webapp.core.text import storable
from webapp.core.users import signed_in
from webapp.projects.access import projects_of
from webapp.projects.models import Role

PAGE = 50
MOST_LINES = 50_000  # of a CSV
NOWHERE = "none"  # entries of things that are in no project
_KEY = re.compile(r"[0-9]{1,18}")
_HEADER = (
    "at", "person", "through", "address", "action", "kind", "key", "name", "project", "details",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is looked for; blank: everything. A date or project that is none is passed over.

    ``project`` is a project's key, as it keeps it whatever it is called, or ``NOWHERE``.
    """

    person: str = ""
    action: str = ""
    thing: str = ""
    project: str = ""
    since: str = ""
    until: str = ""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Wanted:
        """What an address asks for."""
        return cls(**{
            name: storable(str(query.get(name, "")).strip())[:200] for name in cls.__slots__
        })  # fmt: skip

    def among(self, rows: QuerySet[AuditEntry]) -> QuerySet[AuditEntry]:
        """Those of ``rows`` that fit; ``until`` is the last day."""
        if self.person:
            rows = rows.filter(user_name__icontains=self.person)
        if self.action:
            rows = rows.filter(action__startswith=self.action)
        if self.thing:
            rows = rows.filter(name__icontains=self.thing)
        if self.project == NOWHERE:
            rows = rows.filter(project_key=None)
        elif _KEY.fullmatch(self.project):
            rows = rows.filter(project_key=int(self.project))
        if (since := _day(self.since)) is not None:
            rows = rows.filter(at__gte=since)
        if (until := _day(self.until)) is not None:
            rows = rows.filter(at__lt=until + timedelta(days=1))
        return rows


def _day(text: str) -> datetime | None:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    # There is no day after the last one that dates can name.
    return datetime.combine(min(day, date.max - timedelta(days=1)), time(), UTC)


def seen_entries(user: User) -> QuerySet[AuditEntry]:
    """The entries that the person may read. Raises PermissionDenied where they may read none."""
    if user.is_staff:
        return AuditEntry.objects.all()
    theirs = list(projects_of(user, Role.ADMIN).values_list("pk", flat=True))
    if not theirs:
        raise PermissionDenied
    return AuditEntry.objects.filter(project_key__in=theirs)


def projects_to_choose(user: User) -> list[tuple[str, str]]:
    """Key and name of the projects whose entries the person may read, deleted ones last."""
    kept = [(str(pk), name) for pk, name in projects_of(user, Role.ADMIN).values_list("pk", "name")]
    if not user.is_staff:
        return kept
    gone = AuditEntry.objects.filter(kind="project", action="project.delete")
    return kept + [(key, f"{name} (deleted)") for key, name in gone.values_list("key", "name")]


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    """The newest first."""
    wanted = Wanted.of(request.GET)
    user = signed_in(request)
    seen = seen_entries(user)
    page = Paginator(wanted.among(seen), PAGE).get_page(request.GET.get("page"))
    context = {"page": page, "wanted": wanted, "projects": projects_to_choose(user)}
    return render(request, "core/audit.html", context)


@require_safe
def as_csv(request: HttpRequest) -> HttpResponse:
    """The same as CSV, the newest lines."""
    wanted = Wanted.of(request.GET)
    found = wanted.among(seen_entries(signed_in(request)))[:MOST_LINES]
    text = csv_text(_HEADER, _lines(found.iterator(chunk_size=2000)))
    answer = HttpResponse(text, content_type="text/csv; charset=utf-8")
    answer["Content-Disposition"] = 'attachment; filename="audit.csv"'
    return answer


def _lines(entries: Iterable[AuditEntry]) -> Iterable[list[Cell]]:
    for each in entries:
        details = ", ".join(f"{name}: {value}" for name, value in each.details.items())
        yield [
            each.at.isoformat(), each.user_name, each.through, each.address, each.action,
            each.kind, each.key, each.name, each.project_name, details,
        ]  # fmt: skip

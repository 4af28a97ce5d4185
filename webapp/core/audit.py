"""The audit log: who did what to which thing, through what, and whence.

Views and API handlers call :func:`record` after a change that succeeded, in the change's own
transaction where there is one, so that neither is there without the other. Whence it came is known
from the request that is being answered (:class:`AuditMiddleware`); outside one it is a command.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.db import connection, transaction
from django.db.models import Model
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from webapp.core.addresses import address_of
from webapp.core.models import AuditEntry, User
from webapp.core.text import storable

Handler = Callable[[HttpRequest], HttpResponse]

COMMAND = "command"
PREFIX = 8  # characters by which a session or token is known
_LONGEST_TEXT = 200
_MOST_VALUES = 50
_ACTION = re.compile(r"[a-z_]+\.[a-z_]+")
_SECRET = re.compile("password|secret|token|api_key", re.IGNORECASE)
# By which way a thing that has no project itself is in one.
_WAYS = ("project", "run", "checkpoint", "evaluation", "stage")

_request: ContextVar[HttpRequest | None] = ContextVar("audited_request", default=None)
_through: ContextVar[str] = ContextVar("audited_through", default="")


class AuditMiddleware:
    """Stands after the sessions' middleware: lets :func:`record` know the request."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer."""
        of_request, of_through = _request.set(request), _through.set("")
        try:
            return self.get_response(request)
        finally:
            _request.reset(of_request)
            _through.reset(of_through)


def comes_through(what: str) -> None:
    """Say what the person is known by where it is no session, as ``token 3f2a91c0``."""
    _through.set(what)


def session_name(session_key: str) -> str:
    """What a session is called where people read it; its key is what lets one in."""
    return hashlib.sha256(session_key.encode()).hexdigest()[:PREFIX]


def record(
    user: User | AnonymousUser | None,
    action: str,
    thing: Model | None = None,
    *,
    project: Model | None = None,
    **details: Any,
) -> AuditEntry:
    """Write down that ``user`` did ``action`` (``kind.verb``) to ``thing``.

    Call it before a thing is deleted, in the same transaction. ``project`` is only needed where the
    thing does not lead to one. ``details`` are numbers, texts and lists of them; they are cut where
    they are long. Raises ValueError where an action is not named so, a detail's name says that it
    is a secret, or the thing has no key.
    """
    if not _ACTION.fullmatch(action):
        raise ValueError(f"action: {action!r} is not named as in run.cancel")
    if secret := next((name for name in details if _SECRET.search(name)), None):
        raise ValueError(f"{secret}: the audit log holds no secrets")
    if thing is not None and thing.pk is None:
        raise ValueError(f"{action}: record it before the thing is deleted")
    place = project if project is not None else _project_of(thing)
    address, through = _origin()
    signed_in = user if isinstance(user, User) else None
    return AuditEntry.objects.create(
        user_key=signed_in.pk if signed_in else None,
        user_name=signed_in.get_username() if signed_in else "",
        through=through,
        address=address,
        action=action,
        kind=_kind(thing) if thing is not None else "",
        key=str(thing.pk) if thing is not None else "",
        name=_text(getattr(thing, "name", None) or str(thing)) if thing is not None else "",
        project_key=place.pk if place is not None else None,
        project_name=str(place) if place is not None else "",
        details={name: _plain(value) for name, value in details.items()},
    )


def forget_old(now: datetime | None = None) -> int:
    """Take away what is older than ``RETORT_KEEP_AUDIT_DAYS``; returns how many entries."""
    if not settings.RETORT_KEEP_AUDIT_DAYS:
        return 0
    before = (now or timezone.now()) - timedelta(days=settings.RETORT_KEEP_AUDIT_DAYS)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL retort.prunes_audit = 'on'")
        cursor.execute("DELETE FROM core_auditentry WHERE at < %s", [before])
        gone = int(cursor.rowcount)
        cursor.execute("SET LOCAL retort.prunes_audit = 'off'")  # an outer transaction goes on
    return gone


def _origin() -> tuple[str, str]:
    """The address, and what the person is known by."""
    request = _request.get()
    if request is None:
        return "", _through.get() or COMMAND
    key = request.session.session_key if hasattr(request, "session") else None
    session = f"session {session_name(key)}" if key else "no session"
    return address_of(request), _through.get() or session


def _kind(thing: Model) -> str:
    return "account" if isinstance(thing, User) else str(thing._meta.model_name)


def _project_of(thing: Model | None) -> Model | None:
    """The project that the thing is in, by the shortest way; None where it is in none."""
    if thing is None or thing._meta.label == "projects.Project":
        return thing
    for way in _WAYS:
        found = getattr(thing, way, None)
        if isinstance(found, Model):
            return _project_of(found)
    return None


def _text(value: object) -> str:
    """Without what the database cannot hold (NUL, halves of surrogate pairs), and not too long."""
    text = storable(str(value))
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"


def _plain(value: object) -> Any:
    """``value`` as JSON holds it."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, Mapping):
        pairs = list(value.items())[:_MOST_VALUES]
        return {_text(name): _plain(each) for name, each in pairs}
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str | bytes):
        return [_plain(each) for each in list(value)[:_MOST_VALUES]]
    return _text(value)

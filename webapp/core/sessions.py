"""Who is signed in where: Django's sessions in the database, with the person, device and address.

``SESSION_ENGINE`` names this module. A session that is deleted has ended, at once and everywhere.
Rows hold a digest of the key that the cookie carries: who reads the database, or a backup of it,
is signed in nowhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth import SESSION_KEY
from django.contrib.auth.signals import user_logged_in
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from webapp.core import audit
from webapp.core.addresses import address_of
from webapp.core.models import Session, User
from webapp.core.text import storable

SEEN_AGAIN = timedelta(minutes=5)
_LONGEST_DEVICE = 200
_DIGEST_DIGITS = 40  # as many as Django's column takes: 160 bits
_FACTS = ("address", "device")
_TIMES = ("began_at", "seen_at")

Handler = Callable[[HttpRequest], HttpResponse]


def digest_of(session_key: str) -> str:
    """What a row holds of the cookie's key, which is drawn at random: it needs no salt."""
    return hashlib.sha256(session_key.encode()).hexdigest()[:_DIGEST_DIGITS]


class SessionStore(DatabaseStore):
    """Keeps a digest of the key, and beside the data whose session it is."""

    @classmethod
    def get_model_class(cls) -> type[Session]:
        """The table."""
        return Session

    def create_model_instance(self, data: dict[str, Any]) -> Session:
        """The row of ``data``."""
        row = super().create_model_instance(data)
        assert isinstance(row, Session)
        row.session_key = digest_of(row.session_key)
        row.user_id = int(data[SESSION_KEY]) if SESSION_KEY in data else None
        for name in _FACTS:
            setattr(row, name, data.get(name, ""))
        for name in _TIMES:
            setattr(row, name, datetime.fromisoformat(data[name]) if name in data else None)
        return row

    def exists(self, session_key: str) -> bool:
        """Whether there is a session of this key."""
        return Session.objects.filter(session_key=digest_of(session_key)).exists()

    def delete(self, session_key: str | None = None) -> None:
        """End the session of this key, or this one."""
        key = session_key or self.session_key
        if key is not None:
            Session.objects.filter(session_key=digest_of(key)).delete()

    def _get_session_from_db(self) -> Session | None:
        row = Session.objects.filter(
            session_key=digest_of(self.session_key or ""), expire_date__gt=timezone.now()
        ).first()
        if row is None:
            self._session_key = None
        return row


class SeenMiddleware:
    """Stands after authentication: notes where and when a session was used last."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer."""
        return self.get_response(request)

    def process_view(
        self, request: HttpRequest, view: Callable[..., Any], args: Any, kwargs: Any
    ) -> None:
        """Where signing in is needed, the session has been read already."""
        if getattr(view, "login_required", True) and SESSION_KEY in request.session:
            seen_at = request.session.get("seen_at")
            now = timezone.now()
            if seen_at is None or now - datetime.fromisoformat(seen_at) > SEEN_AGAIN:
                _note(request, now)


def _note(request: HttpRequest, now: datetime) -> None:
    agent = "".join(c for c in request.META.get("HTTP_USER_AGENT", "") if c.isprintable())
    request.session["seen_at"] = now.isoformat()
    request.session["address"] = address_of(request)
    request.session["device"] = storable(agent)[:_LONGEST_DEVICE]


def _begin(request: HttpRequest, **_: Any) -> None:
    """Called when somebody has signed in."""
    now = timezone.now()
    request.session["began_at"] = now.isoformat()
    _note(request, now)


user_logged_in.connect(_begin, dispatch_uid="sessions")


def sessions_of(user: User) -> QuerySet[Session]:
    """The person's sessions that have not ended, the one used last first."""
    return Session.objects.filter(user=user, expire_date__gt=timezone.now()).order_by(
        "-seen_at", "session_key"
    )


def known_as(row: Session) -> str:
    """What people call it, and the audit log (``audit.session_name``)."""
    return row.session_key[: audit.PREFIX]


def end(user: User, name: str) -> bool:
    """End the session of this name; False where there is none."""
    found = [each for each in sessions_of(user) if known_as(each) == name]
    for each in found:
        each.delete()
    return bool(found)


def end_all(user: User, *, but: str | None = None) -> int:
    """End all of a person's sessions but the one of this key; returns how many."""
    return Session.objects.filter(user=user).exclude(session_key=digest_of(but or "")).delete()[0]


def forget_old() -> int:
    """Take away what has run out; returns how many."""
    return Session.objects.filter(expire_date__lt=timezone.now()).delete()[0]


def name_of(user_agent: str) -> str:
    """Browser and system of a User-Agent in two words, as far as it tells them."""
    browser = next((name for mark, name in _BROWSERS if mark in user_agent), "")
    system = next((name for mark, name in _SYSTEMS if mark in user_agent), "")
    if browser and system:
        return f"{browser} on {system}"
    return browser or system or user_agent[:40] or "unknown"


# What a User-Agent holds → what it is called; the first that fits: Edge says Chrome, too, and
# everything says Safari.
_BROWSERS = (
    ("Edg/", "Edge"), ("OPR/", "Opera"), ("Firefox/", "Firefox"), ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
)  # fmt: skip
_SYSTEMS = (
    ("Android", "Android"), ("iPhone", "iPhone"), ("iPad", "iPad"), ("Windows", "Windows"),
    ("Mac OS X", "macOS"), ("Linux", "Linux"),
)  # fmt: skip

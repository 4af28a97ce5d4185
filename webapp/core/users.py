"""Who asks, and what they may decide about."""

from __future__ import annotations

from typing import Protocol

from django.http import HttpRequest

from webapp.core.models import User


def signed_in(request: HttpRequest) -> User:
    """The person who is signed in; every page but the public ones has one (middleware)."""
    user = request.user
    if not isinstance(user, User):
        raise TypeError("this view was reached by somebody who is not signed in")
    return user


class Owned(Protocol):
    """A row that belongs to somebody."""

    owner_id: int


def may_manage(user: User, thing: Owned) -> bool:
    """Whether the person decides what becomes of it: its owner does, and staff."""
    return user.is_staff or thing.owner_id == user.pk

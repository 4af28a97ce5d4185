"""Who asks."""

from __future__ import annotations

from django.http import HttpRequest

from webapp.core.models import User


def signed_in(request: HttpRequest) -> User:
    """The person who is signed in; every page but the public ones has one (middleware)."""
    user = request.user
    if not isinstance(user, User):
        raise TypeError("this view was reached by somebody who is not signed in")
    return user

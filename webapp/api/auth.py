"""Who asks: a token's owner, or whoever is signed in with a session and sends its CSRF token."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponseBase
from django.views.decorators.csrf import csrf_exempt

from webapp.api import tokens
from webapp.api.errors import ForbiddenError, UnauthenticatedError, refusal
from webapp.api.framework import SimpleRateThrottle, check_csrf
from webapp.api.models import AT_LEAST, ApiToken, Scope
from webapp.core import audit, logs
from webapp.core.models import User
from webapp.core.users import signed_in


class Needs:
    """Lets through who may use an operation of this scope; sets ``request.user``.

    Raises UnauthenticatedError and ForbiddenError.
    """

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    def __call__(self, request: HttpRequest) -> User:
        """The person who asks."""
        if request.headers.get("Authorization"):
            return self._by_token(request)
        return _by_session(request)

    def _by_token(self, request: HttpRequest) -> User:
        kind, _, secret = request.headers["Authorization"].partition(" ")
        token = tokens.find(secret.strip()) if kind.lower() == "bearer" else None
        if token is None:
            raise UnauthenticatedError("The token is unknown, expired or revoked; make another.")
        if Scope(token.scope) not in AT_LEAST[self.scope]:
            raise ForbiddenError(
                f"The token's scope is {token.scope}, and this needs {self.scope}; use another one."
            )
        tokens.note_use(token)
        person = token.owner
        if token.project_id is not None:
            person.limit_to(token.project_id)
        request.user = person
        request.api_token = token  # type: ignore[attr-defined]
        logs.add(user=person.pk, token=token.pk)
        audit.comes_through(f"token {token.prefix.removeprefix(tokens.START)}")
        return person


def _by_session(request: HttpRequest) -> User:
    if not request.user.is_authenticated:
        raise UnauthenticatedError
    if check_csrf(request) is not None:
        raise UnauthenticatedError("A session alone is not enough here: send its CSRF token, too.")
    logs.add(user=request.user.pk)
    return signed_in(request)


READ, WRITE, ADMIN = Needs(Scope.READ), Needs(Scope.WRITE), Needs(Scope.ADMIN)


def token_of(request: HttpRequest) -> ApiToken | None:
    """The token that the request came with; None for a session."""
    found: ApiToken | None = getattr(request, "api_token", None)
    return found


def require_staff(request: HttpRequest) -> User:
    """Who asks, where they are an administrator of the installation. Raises ForbiddenError."""
    person = signed_in(request)
    if not person.is_staff:
        raise ForbiddenError("Only administrators of the installation may do this.")
    return person


class Throttle(SimpleRateThrottle):
    """So many requests of one person, ``RETORT_API_RATE``, counted by each web process."""

    scope = "api"

    def __init__(self) -> None:
        super().__init__(settings.RETORT_API_RATE)

    def get_cache_key(self, request: HttpRequest) -> str | None:
        """A key for whoever asks."""
        return self.cache_format % {"scope": self.scope, "ident": signed_in(request).pk}


def for_tokens(
    view: Callable[..., HttpResponseBase], *, reading: tuple[str, ...] = ("HEAD", "OPTIONS")
) -> Callable[..., HttpResponseBase]:
    """An existing view that lets tokens through as the API's own operations do."""

    @csrf_exempt
    @login_not_required
    @wraps(view)
    def wrapped(request: HttpRequest, *args: Any, **named: Any) -> HttpResponseBase:
        needs = READ if request.method in reading else WRITE
        try:
            needs(request)
        except UnauthenticatedError as error:
            return refusal(401, str(error) or "Send a live token.")
        except ForbiddenError as error:
            return refusal(403, error.sentence)
        return view(request, *args, **named)

    return wrapped

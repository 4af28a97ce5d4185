"""Requests: an id on every line they log, a line each, and how long they took."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse

from webapp.core import logs
from webapp.monitoring import latency

Handler = Callable[[HttpRequest], HttpResponse]

_GIVEN = re.compile(r"[A-Za-z0-9._-]{1,64}")
# Invitations' tokens, and Django's for new passwords; told by their looks, since a link whose last
# slash a mail program took off leads to no view yet.
_TOKEN = re.compile(r"(?<=/)([A-Za-z0-9_-]{43}|[0-9a-z]{1,13}-[0-9a-f]{32})(?=/|$)")
_QUIET = ("healthz", "readyz", "metrics")  # asked every few seconds, by machines

logger = logging.getLogger(__name__)


class RequestMiddleware:
    """Stands outermost: its time is that of the whole answer, a stream's up to its beginning."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer, with the request's id as a header: the proxy's, if it gave one, or our own."""
        given = request.headers.get("x-request-id", "")
        request_id = given if _GIVEN.fullmatch(given) else uuid.uuid4().hex[:16]
        began = time.monotonic()
        with logs.about(request_id=request_id):
            response = self.get_response(request)
            match = request.resolver_match
            view = match.view_name if match is not None else "none"
            seconds = time.monotonic() - began
            latency.observe(view, request.method or "", response.status_code, seconds)
            if view not in _QUIET:
                logger.info(
                    "%s %s", request.method, _path(request),
                    extra={
                        "view": view, "status": response.status_code,
                        "milliseconds": round(1000 * seconds, 1),
                    },
                )  # fmt: skip
        response.headers["X-Request-ID"] = request_id
        return response


def _path(request: HttpRequest) -> str:
    """The path without the token of a link, which lets one in."""
    return _TOKEN.sub(logs.STRUCK_OUT, request.path)


class UserIdMiddleware:
    """Stands after authentication: lines of a page for signed-in people say whose they are."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer."""
        return self.get_response(request)

    def process_view(
        self, request: HttpRequest, view: Callable[..., Any], args: Any, kwargs: Any
    ) -> None:
        """Where signing in is needed, the person has been looked up already."""
        if getattr(view, "login_required", True) and request.user.pk is not None:
            logs.add(user=request.user.pk)

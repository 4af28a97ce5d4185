"""Bodies of requests: none without a length, none nested without end."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse

from webapp.core.errors import UserError

MOST_LEVELS = 64  # of lists and objects; a recipe has six

Handler = Callable[[HttpRequest], HttpResponse]


class BodyMiddleware:
    """Refuses a body that comes in pieces of unknown number (``Transfer-Encoding: chunked``).

    WSGI knows no end of it but the connection's, so Django takes it for an empty one.
    """

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer, 411 where the length is not told."""
        if "Transfer-Encoding" not in request.headers or request.META.get("CONTENT_LENGTH"):
            return self.get_response(request)
        sentence = "body: its length is not told; send it with Content-Length."
        if request.path.startswith("/api/"):
            return JsonResponse({"field": "body", "sentence": sentence}, status=411)
        return HttpResponse(sentence, status=411, content_type="text/plain; charset=utf-8")


def read_json(body: bytes) -> Any:
    """The JSON of a body, which nobody can make us follow too deep.

    Raises UserError, and ValueError for what is no JSON.
    """
    try:
        value = json.loads(body)
    except RecursionError:
        raise _too_deep() from None
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MOST_LEVELS):
        level = [each for one in level for each in _inside(one)]
        if not level:
            return value
    raise _too_deep()


def _inside(value: dict[str, Any] | list[Any]) -> list[Any]:
    """Lists and objects that stand directly in one."""
    found = value.values() if isinstance(value, dict) else value
    return [each for each in found if isinstance(each, dict | list)]


def _too_deep() -> UserError:
    return UserError(f"body: is nested deeper than {MOST_LEVELS} levels; send it flatter.", "body")

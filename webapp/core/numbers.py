"""Reading numbers from the query string."""

from __future__ import annotations

from django.http import HttpRequest


def query_number(request: HttpRequest, key: str) -> int | None:
    """The whole number that ``?key=`` holds; None where it is missing or no number."""
    value = request.GET.get(key, "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 12 else None

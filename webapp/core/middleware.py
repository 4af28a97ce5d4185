"""The content security policy, on every response."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse

Handler = Callable[[HttpRequest], HttpResponse]

_NONCE_BYTES = 16  # the specification asks for at least 128 bits
_PAGE = "text/html"


class ContentSecurityPolicyMiddleware:
    """Adds a policy as a header where a view has set none.

    A page gets ``settings.CONTENT_SECURITY_POLICY``, and runs only scripts whose tag carries the
    nonce of this one answer: templates write it as ``{{ request.csp_nonce }}``. Whatever is no page
    (a download, a text, data) may do nothing at all, should a browser ever show it as one.
    https://www.w3.org/TR/CSP3/
    """

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer, with the header."""
        nonce = secrets.token_urlsafe(_NONCE_BYTES)
        request.csp_nonce = nonce  # type: ignore[attr-defined]
        response = self.get_response(request)
        is_page = response.headers.get("Content-Type", "").startswith(_PAGE)
        is_download = response.headers.get("Content-Disposition", "").startswith("attachment")
        policy = (
            _header(settings.CONTENT_SECURITY_POLICY).replace("{nonce}", nonce)
            if is_page and not is_download
            else _header(settings.CONTENT_SECURITY_POLICY_OF_FILES)
        )
        response.headers.setdefault("Content-Security-Policy", policy)
        return response


def _header(directives: dict[str, str]) -> str:
    return "; ".join(f"{name} {sources}".strip() for name, sources in directives.items())

"""The content security policy, on every response; and where those go who are not signed in."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django_htmx.http import HttpResponseClientRefresh

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


class SignedInMiddleware(LoginRequiredMiddleware):
    """Sends who is not signed in to the sign-in page, and from there back to a page.

    A session may end under an open page. What htmx asks for then is a part of that page, and a form
    is sent to an address that shows nothing: the page itself is what one comes back to.
    """

    def process_view(
        self, request: HttpRequest, view_func: Any, view_args: Any, view_kwargs: Any
    ) -> HttpResponseBase | None:
        """Have htmx load the open page again; that request is then sent to sign in."""
        answer = super().process_view(request, view_func, view_args, view_kwargs)
        if answer is not None and "HX-Request" in request.headers:
            return HttpResponseClientRefresh()
        return answer

    def handle_no_permission(self, request: HttpRequest, view_func: Any) -> HttpResponseRedirect:
        """To the sign-in page, which leads back to what was asked for, or to the form's page."""
        if request.method in ("GET", "HEAD"):
            return super().handle_no_permission(request, view_func)
        page = urlsplit(request.headers.get("Referer", ""))
        is_ours = page.netloc == request.get_host()
        return redirect_to_login(page._replace(scheme="", netloc="").geturl() if is_ours else "/")


def _header(directives: dict[str, str]) -> str:
    return "; ".join(f"{name} {sources}".strip() for name, sources in directives.items())

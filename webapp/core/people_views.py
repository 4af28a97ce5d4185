"""The accounts of the installation, for administrators."""

from __future__ import annotations

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from webapp.core import accounts
from webapp.core.errors import UserError
from webapp.core.models import User
from webapp.core.text import storable
from webapp.core.users import signed_in

PAGE = 50


def _administrator(request: HttpRequest) -> User:
    user = signed_in(request)
    if not user.is_staff:
        raise PermissionDenied
    return user


def _page(request: HttpRequest, link: str = "", whose: User | None = None) -> HttpResponse:
    wanted = storable(request.GET.get("name", "").strip())[:150]
    found = User.objects.annotate(project_count=Count("memberships")).order_by("username")
    if wanted:
        found = found.filter(username__icontains=wanted)
    page = Paginator(found, PAGE).get_page(request.GET.get("page"))
    context = {"page": page, "wanted": wanted, "link": link, "whose": whose}
    answer = render(request, "core/people.html", context)
    answer["Cache-Control"] = "no-store"
    return answer


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    """Everybody who has an account."""
    _administrator(request)
    return _page(request)


@require_POST
def deactivate(request: HttpRequest, pk: int) -> HttpResponse:
    """Let nobody sign in with an account."""
    actor, user = _administrator(request), get_object_or_404(User, pk=pk)
    try:
        accounts.deactivate(actor, user)
    except UserError as error:
        messages.error(request, error.sentence)
    else:
        messages.success(request, f"{user.get_username()} is signed out and cannot sign in.")
    return redirect("core:people")


@require_POST
def activate(request: HttpRequest, pk: int) -> HttpResponse:
    """Let somebody sign in again."""
    actor, user = _administrator(request), get_object_or_404(User, pk=pk)
    accounts.activate(actor, user)
    messages.success(request, f"{user.get_username()} can sign in again.")
    return redirect("core:people")


@require_POST
def make_reset_link(request: HttpRequest, pk: int) -> HttpResponse:
    """Show, this once, a link for a new password."""
    actor, user = _administrator(request), get_object_or_404(User, pk=pk)
    try:
        return _page(request, accounts.make_reset_link(actor, user), user)
    except UserError as error:
        messages.error(request, error.sentence)
        return redirect("core:people")

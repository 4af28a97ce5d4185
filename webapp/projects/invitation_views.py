"""Accepting an invitation.

The link's token goes into the session at once and out of the address: addresses are logged, stay in
a browser's history, and are what a page tells of itself elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.contrib.auth import login
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.forms import UserCreationForm
from django.db import IntegrityError, transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from webapp.core import audit
from webapp.core.forms import speak
from webapp.core.models import User
from webapp.projects import invitations
from webapp.projects.models import Invitation

_KEPT = "invitation"  # the token's name in the session
_BACKEND = "django.contrib.auth.backends.ModelBackend"

if TYPE_CHECKING:  # no generic when it runs
    _UserForm = UserCreationForm[User]
else:
    _UserForm = UserCreationForm


class AccountForm(_UserForm):
    """Name and password of a new account."""

    class Meta:
        model = User
        fields = ("username",)

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        speak(self.fields)
        self.fields["username"].help_text = "Letters, digits and @ . + - _ only."
        self.fields["password2"].help_text = ""


@login_not_required
@require_safe
def link(request: HttpRequest, token: str) -> HttpResponse:
    """The link itself; one that opens nothing makes no session, and the next page says so."""
    if invitations.find(token) is not None:
        request.session[_KEPT] = token
    return redirect("projects:invitation")


@login_not_required
@require_http_methods(["GET", "HEAD", "POST"])
def invitation(request: HttpRequest) -> HttpResponse:
    """Say what joins what, and do it."""
    token = str(request.session.get(_KEPT, ""))
    found = invitations.find(token)
    if found is None:
        return _page(request, None, None, 404)
    user = request.user
    if isinstance(user, User):
        is_sent = request.method == "POST"
        return _joined(request, token, user) if is_sent else _page(request, found, None)
    form = AccountForm(request.POST if request.method == "POST" else None)
    if not (form.is_bound and form.is_valid()):
        return _page(request, found, form, 400 if form.is_bound else 200)
    # Not by create_user, which joins the first project.
    account = form.save(commit=False)
    account.email = found.email
    try:
        answer = _made_and_joined(request, token, account)
    except IntegrityError:  # the same form, sent twice at once
        form.add_error("username", "Username: somebody has it by now; choose another.")
        return _page(request, found, form, 400)
    if answer.status_code != 404:
        login(request, account, backend=_BACKEND)
    return answer


@transaction.atomic
def _made_and_joined(request: HttpRequest, token: str, account: User) -> HttpResponse:
    """Make the account and let it join; neither where the link opens nothing any more."""
    account.save()
    audit.record(account, "account.make", account)
    answer = _joined(request, token, account)
    if answer.status_code == 404:
        transaction.set_rollback(True)
    return answer


def _joined(request: HttpRequest, token: str, user: User) -> HttpResponse:
    project = invitations.accept(token, user)
    if project is None:  # somebody else was faster, or it was revoked in this moment
        return _page(request, None, None, 404)
    del request.session[_KEPT]
    messages.success(request, f"You are in the project {project.name} now.")
    return redirect("projects:detail", project.pk)


def _page(
    request: HttpRequest, found: Invitation | None, form: AccountForm | None, status: int = 200
) -> HttpResponse:
    user = request.user
    context = {
        "invitation": found,
        "form": form,
        "is_another": found is not None
        and isinstance(user, User)
        and user.email.lower() != found.email,
    }
    answer = render(request, "projects/invitation.html", context, status=status)
    answer["Cache-Control"] = "no-store"
    return answer

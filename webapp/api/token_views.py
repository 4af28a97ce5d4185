"""The page of one's API tokens: made once, shown once, revoked."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.core.paginator import Paginator
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from webapp.api import tokens
from webapp.api.models import ApiToken, Scope
from webapp.core import audit
from webapp.core.account_views import check_password, password_field
from webapp.core.errors import UserError
from webapp.core.forms import speak
from webapp.core.users import signed_in
from webapp.projects.models import Project

PAGE = 50
_SCOPES = [
    (Scope.READ.value, "read: look and download"),
    (Scope.WRITE.value, "write: also launch, upload, change and delete"),
    (Scope.ADMIN.value, "admin: also what only administrators do"),
]


class TokenForm(forms.Form):
    """What a new token is for."""

    name = forms.CharField(max_length=100, help_text="Where it is used, as “laptop”.")
    scope = forms.ChoiceField(
        choices=_SCOPES, initial=Scope.READ.value,
        help_text="It never does more than you may.",
    )  # fmt: skip
    days = forms.IntegerField(
        min_value=1, max_value=tokens.MOST_DAYS, initial=tokens.DAYS, label="Days that it lives"
    )
    project = forms.ModelChoiceField(
        Project.objects.none(), required=False, empty_label="all that I see",
        label="Limited to",
        help_text="In one project it acts by your role there, without an administrator's powers.",
    )  # fmt: skip

    password = password_field()

    def __init__(self, request: HttpRequest, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.request, person = request, signed_in(request)
        self.fields["project"].queryset = tokens.may_be_limited_to(person)  # type: ignore[attr-defined]
        speak(self.fields)

    def clean_password(self) -> str:
        """A token outlives the session, and a new password: an open browser alone makes none."""
        check_password(self.request, self.cleaned_data["password"])
        return str(self.cleaned_data["password"])


@require_http_methods(["GET", "HEAD", "POST"])
def index(request: HttpRequest) -> HttpResponse:
    """One's tokens, and a form for another; a new one's secret stands in this one answer only."""
    person, secret = signed_in(request), ""
    form = TokenForm(request, request.POST if request.method == "POST" else None)
    if form.is_bound and form.is_valid():
        wanted = {name: form.cleaned_data[name] for name in ("name", "scope", "days", "project")}
        try:
            with transaction.atomic():
                token, secret = tokens.make(person, **wanted)
                audit.record(person, "token.create", token, scope=token.scope)
        except UserError as error:
            form.add_error(error.field, error.sentence)
        else:
            form = TokenForm(request)
    page = Paginator(tokens.of(person), PAGE).get_page(request.GET.get("page"))
    context = {"form": form, "secret": secret, "page": page}
    status = 400 if form.is_bound else 200
    response = render(request, "api/tokens.html", context, status=status)
    response["Cache-Control"] = "no-store"
    return response


@require_POST
def revoke(request: HttpRequest, pk: int) -> HttpResponse:
    """Have a token open nothing any more."""
    person = signed_in(request)
    token = get_object_or_404(ApiToken, pk=pk, owner=person)
    with transaction.atomic():
        tokens.revoke(token)
        audit.record(person, "token.revoke", token)
    messages.success(request, f"The token “{token}” opens nothing any more.")
    return redirect("tokens:index")

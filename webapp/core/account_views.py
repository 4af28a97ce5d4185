"""One's own account: mail address, password, sessions."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.contrib.auth.forms import PasswordChangeForm
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from webapp.core import accounts, audit, sessions, throttling
from webapp.core.addresses import address_of
from webapp.core.forms import speak
from webapp.core.users import signed_in


def check_password(request: HttpRequest, password: str) -> None:
    """Raise ValidationError where it is wrong, or was tried too often."""
    user, address = signed_in(request), address_of(request)
    count = throttling.of_account("password", user.get_username(), address)
    if wait := throttling.begin([count]):
        raise ValidationError(throttling.in_words(wait))
    if not user.check_password(password):
        raise ValidationError("Present password: that is not it; try again.")
    throttling.succeeded(count, None)


def password_field() -> forms.CharField:
    """Asks for the present password, which whoever only found the browser open does not know."""
    return forms.CharField(
        label="Present password", strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )  # fmt: skip


class EmailForm(forms.Form):
    """Where mails that reset the password go."""

    email = forms.EmailField(
        max_length=254, required=False, label="Mail address",
        help_text="A link for a new password goes there. Empty: none.",
    )  # fmt: skip
    password = password_field()

    def __init__(self, request: HttpRequest, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.request = request
        speak(self.fields)
        self.fields["email"].error_messages["invalid"] = "Mail address: give one as name@host."

    def clean_password(self) -> str:
        """Whoever only found the browser open shall not take the account over."""
        check_password(self.request, self.cleaned_data["password"])
        return str(self.cleaned_data["password"])


class PasswordForm(PasswordChangeForm):
    """The present password, and the new one twice."""

    def __init__(self, request: HttpRequest, *args: Any, **named: Any) -> None:
        super().__init__(signed_in(request), *args, **named)
        self.request = request
        self.fields["old_password"].label = "Present password"
        speak(self.fields)

    def clean_old_password(self) -> str:
        """The present one, tried only so often."""
        check_password(self.request, self.cleaned_data["old_password"])
        return str(self.cleaned_data["old_password"])


@require_http_methods(["GET", "HEAD", "POST"])
def profile(request: HttpRequest) -> HttpResponse:
    """One's account and where one is signed in."""
    user = signed_in(request)
    bound = request.method == "POST"
    form = EmailForm(request, request.POST if bound else None, initial={"email": user.email})
    if bound and form.is_valid():
        accounts.change_email(user, form.cleaned_data["email"])
        messages.success(request, "Saved.")
        return redirect("core:profile")
    own = sessions.digest_of(request.session.session_key or "")
    rows = [
        {
            "name": sessions.known_as(each),
            "device": sessions.name_of(each.device),
            "agent": each.device,
            "address": each.address,
            "began_at": each.began_at,
            "seen_at": each.seen_at,
            "is_this": each.session_key == own,
        }
        for each in sessions.sessions_of(user)
    ]
    memberships = user.memberships.select_related("project").order_by("project__name")
    context = {"form": form, "sessions": rows, "memberships": memberships}
    answer = render(request, "core/profile.html", context, status=400 if bound else 200)
    answer["Cache-Control"] = "no-store"
    return answer


@require_http_methods(["GET", "HEAD", "POST"])
def password(request: HttpRequest) -> HttpResponse:
    """Change one's password, which ends one's other sessions."""
    form = PasswordForm(request, request.POST if request.method == "POST" else None)
    if form.is_bound and form.is_valid():
        user = form.save()
        update_session_auth_hash(request, user)
        accounts.password_changed(user, "account.password", but=request.session.session_key)
        messages.success(request, "Your password is changed; your other sessions have ended.")
        return redirect("core:profile")
    return render(
        request, "core/password.html", {"form": form}, status=400 if form.is_bound else 200
    )


@require_POST
def end_session(request: HttpRequest, name: str) -> HttpResponse:
    """End one of one's sessions; one's own asks to sign in again."""
    user = signed_in(request)
    with transaction.atomic():
        if not sessions.end(user, name):
            raise Http404
        audit.record(user, "session.revoke", session=name)
    messages.success(request, "That session has ended.")
    return redirect("core:profile")


@require_POST
def end_other_sessions(request: HttpRequest) -> HttpResponse:
    """End all of one's sessions but this one."""
    user = signed_in(request)
    with transaction.atomic():
        ended = sessions.end_all(user, but=request.session.session_key)
        audit.record(user, "session.revoke_others", ended=ended)
    messages.success(request, "Your other sessions have ended.")
    return redirect("core:profile")

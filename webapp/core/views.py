"""Signing in and out, and getting a new password."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import logout
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.forms import AuthenticationForm, PasswordResetForm, SetPasswordForm
from django.contrib.auth.views import LoginView, PasswordResetConfirmView
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.decorators import method_decorator
from django.views.decorators.http import require_http_methods, require_POST

from webapp.core import accounts, audit, mail, throttling
from webapp.core.addresses import address_of
from webapp.core.forms import speak
from webapp.core.models import User
from webapp.core.users import signed_in

TOO_MANY = 429  # RFC 6585


class SignInForm(AuthenticationForm):
    """Name and password."""

    is_throttled = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        speak(self.fields)

    def clean(self) -> dict[str, Any]:
        """Look whether they are right, where the person need not wait."""
        name = self.cleaned_data.get("username")
        if name is None or not self.cleaned_data.get("password") or self.request is None:
            return super().clean()
        address = address_of(self.request)
        account = throttling.of_account("sign-in", name, address)
        whole = throttling.of_address("sign-in", address)
        if wait := throttling.begin([account, whole]):
            self.is_throttled = True
            raise ValidationError(throttling.in_words(wait), code="throttled")
        try:
            cleaned: dict[str, Any] = super().clean()
        except ValidationError:
            # The same work whether there is such an account or not. A name that is none may be a
            # password that slipped into the wrong field: it is not kept.
            audit.record(None, "session.refuse", User.objects.filter(username=name).first())
            raise
        throttling.succeeded(account, whole)
        return cleaned


class SignIn(LoginView):
    """The sign-in page; whoever is signed in already goes on to the leaderboard."""

    template_name = "core/login.html"
    form_class = SignInForm
    redirect_authenticated_user = True
    next_page = "leaderboard:index"

    def form_valid(self, form: Any) -> HttpResponse:
        """Let them in."""
        answer = super().form_valid(form)
        audit.record(form.get_user(), "session.begin")
        return answer

    def form_invalid(self, form: Any) -> HttpResponse:
        """Say what is wrong."""
        answer = super().form_invalid(form)
        if form.is_throttled:
            answer.status_code = TOO_MANY
        return answer


@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    """Sign out and show the sign-in page."""
    audit.record(signed_in(request), "session.end")
    logout(request)
    return redirect("core:login")


class ResetForm(PasswordResetForm):
    """Where the link shall go."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["email"].label = "Mail address"
        speak(self.fields)
        self.fields["email"].error_messages["invalid"] = "Mail address: give one as name@host."


@login_not_required
@require_http_methods(["GET", "HEAD", "POST"])
def reset(request: HttpRequest) -> HttpResponse:
    """Send a link to whoever has an account with this address, and say the same to all others."""
    form = ResetForm(request.POST if request.method == "POST" else None)
    status = 200
    if form.is_bound and settings.EMAIL_CONFIGURED and form.is_valid():
        if not (wait := throttling.begin([throttling.of_address("reset", address_of(request))])):
            _send_links(form)
            return render(request, "core/reset_sent.html")
        form.add_error(None, throttling.in_words(wait))
        status = TOO_MANY
    elif form.is_bound:
        status = 400
    context = {"form": form, "has_mail": settings.EMAIL_CONFIGURED}
    return render(request, "core/reset.html", context, status=status)


def _send_links(form: ResetForm) -> None:
    """Mails to the accounts of this address; whoever is flooded with them gets no more."""
    email = form.cleaned_data["email"]
    audit.record(None, "account.ask_reset")
    if throttling.begin([throttling.of_account("reset", email, "")]):
        return
    mail.send_later(
        [
            mail.message(
                "a new password",
                [
                    f"Somebody asked for a new password for the account {user.get_username()}.",
                    "If it was you, set it by this link; it works once, within a day:",
                    accounts.reset_link(user),
                    "",
                    "If it was not you, ignore this: nothing has changed.",
                ],
                user.email,
            )
            for user in form.get_users(email)
        ]
    )


if TYPE_CHECKING:  # no generic when it runs
    _SetPasswordForm = SetPasswordForm[User]
else:
    _SetPasswordForm = SetPasswordForm


class NewPasswordForm(_SetPasswordForm):
    """The new password, twice."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        speak(self.fields)


@method_decorator(
    (login_not_required, require_http_methods(["GET", "HEAD", "POST"])), name="dispatch"
)
class ResetConfirm(PasswordResetConfirmView):
    """What the link leads to."""

    template_name = "core/reset_confirm.html"
    form_class = NewPasswordForm

    def form_valid(self, form: Any) -> HttpResponse:
        """Set it; whoever was signed in with the old one is not any more."""
        super().form_valid(form)
        accounts.password_changed(form.user, "account.reset")
        messages.success(self.request, "Your password is changed. Sign in with it.")
        return redirect("core:login")

    def get_success_url(self) -> str:
        """Where Django would go by itself."""
        return str(settings.LOGIN_REDIRECT_URL)

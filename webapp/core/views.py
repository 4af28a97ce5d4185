"""Signing in and out."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.views import LoginView, LogoutView

from webapp.core.forms import speak


class SignInForm(AuthenticationForm):
    """Name and password."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        speak(self.fields)


class SignIn(LoginView):
    """The sign-in page; whoever is signed in already goes on to the leaderboard."""

    template_name = "core/login.html"
    form_class = SignInForm
    redirect_authenticated_user = True
    next_page = "leaderboard:index"


class SignOut(LogoutView):
    """Signs out (POST only) and shows the sign-in page."""

    next_page = "core:login"

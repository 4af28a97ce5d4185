"""Signing in and out, and the health check."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.views import LoginView, LogoutView
from django.db import DatabaseError, connection
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_safe

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


@login_not_required
@require_safe
def healthz(request: HttpRequest) -> JsonResponse:
    """200 when the web process answers and reaches the database, else 503."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        return JsonResponse({"status": "no database"}, status=503)
    return JsonResponse({"status": "ok"})

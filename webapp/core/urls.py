"""Signing in and out."""

from __future__ import annotations

from django.urls import path

from webapp.core import views

app_name = "core"

urlpatterns = [
    path("login/", views.SignIn.as_view(), name="login"),
    path("logout/", views.SignOut.as_view(), name="logout"),
]

"""The page of one's API tokens."""

from __future__ import annotations

from django.urls import path

from webapp.api import token_views

app_name = "tokens"

urlpatterns = [
    path("", token_views.index, name="index"),
    path("<int:pk>/revoke/", token_views.revoke, name="revoke"),
]

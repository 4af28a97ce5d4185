"""Notifications: the person's settings, and a test of them."""

from __future__ import annotations

from django.urls import path

from webapp.notifications import views

app_name = "notifications"

urlpatterns = [
    path("", views.preference, name="settings"),
    path("test/<slug:channel>/", views.test, name="test"),
]

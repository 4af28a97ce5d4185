"""Addresses that machines ask: without a slash at the end, as they are used to."""

from __future__ import annotations

from django.urls import path

from webapp.monitoring import views

urlpatterns = [
    path("healthz", views.healthz, name="healthz"),
    path("readyz", views.readyz, name="readyz"),
    path("metrics", views.show_metrics, name="metrics"),
]

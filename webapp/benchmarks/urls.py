"""Benchmarks and prompt sets."""

from __future__ import annotations

from django.urls import path

from webapp.benchmarks import views

app_name = "benchmarks"

urlpatterns = [
    path("", views.index, name="index"),
    path("contests/", views.contests, name="contests"),
    path("<int:pk>/", views.detail, name="detail"),
    path("prompt-sets/<int:pk>/", views.prompt_set, name="prompt_set"),
]

"""Checkpoints: list, upload, one checkpoint."""

from __future__ import annotations

from django.urls import path

from webapp.checkpoints import views

app_name = "checkpoints"

urlpatterns = [
    path("", views.index, name="index"),
    path("upload/", views.upload, name="upload"),
    path("<int:pk>/", views.detail, name="detail"),
]

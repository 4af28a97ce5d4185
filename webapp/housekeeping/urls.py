"""Storage: what lies where, archiving and deleting."""

from __future__ import annotations

from django.urls import path

from webapp.housekeeping import views

app_name = "housekeeping"

urlpatterns = [
    path("", views.index, name="index"),
    path("disk/", views.disk, name="disk"),
    path("checkpoints/<int:pk>/", views.checkpoint, name="checkpoint"),
    path("runs/<int:pk>/", views.run, name="run"),
]

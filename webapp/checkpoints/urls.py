"""Checkpoints: list, upload, one checkpoint."""

from __future__ import annotations

from django.urls import path

from webapp.checkpoints import tus, views

app_name = "checkpoints"

urlpatterns = [
    path("", views.index, name="index"),
    path("upload/", views.upload, name="upload"),
    path("uploads/", views.begin_upload, name="begin"),
    path("uploads/<uuid:pk>/", views.resume, name="resume"),
    path("uploads/<uuid:pk>/finish/", views.finish_upload, name="finish"),
    path("uploads/<uuid:pk>/delete/", views.delete_upload, name="discard"),
    path("uploads/<uuid:upload>/files/", tus.files, name="tus-files"),
    path("uploads/<uuid:upload>/files/<uuid:pk>/", tus.one_file, name="tus-file"),
    path("<int:pk>/", views.detail, name="detail"),
]

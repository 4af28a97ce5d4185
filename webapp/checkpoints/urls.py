"""Checkpoints: list, upload, one checkpoint."""

from __future__ import annotations

from django.urls import path

from webapp.checkpoints import tus, upload_views, views

app_name = "checkpoints"

urlpatterns = [
    path("", views.index, name="index"),
    path("upload/", upload_views.upload, name="upload"),
    path("upload/hub/", upload_views.from_hub, name="hub"),
    path("upload/folder/", upload_views.from_folder, name="folder"),
    path("uploads/", upload_views.begin_upload, name="begin"),
    path("uploads/<uuid:pk>/", upload_views.resume, name="resume"),
    path("uploads/<uuid:pk>/live/", upload_views.live, name="upload-live"),
    path("uploads/<uuid:pk>/finish/", upload_views.finish_upload, name="finish"),
    path("uploads/<uuid:pk>/delete/", upload_views.delete_upload, name="discard"),
    path("uploads/<uuid:upload>/files/", tus.files, name="tus-files"),
    path("uploads/<uuid:upload>/files/<uuid:pk>/", tus.one_file, name="tus-file"),
    path("<int:pk>/", views.detail, name="detail"),
    path("<int:pk>/edit/", views.edit, name="edit"),
    path("<int:pk>/card/", views.card, name="card"),
    path("<int:pk>/checkpoint.tar", views.tar, name="tar"),
    path("lineage/runs/<int:pk>/", views.run_lineage, name="run-lineage"),
]

"""Endpoints: list, register, one endpoint, testing and deleting it."""

from __future__ import annotations

from django.urls import path

from webapp.endpoints import views

app_name = "endpoints"

urlpatterns = [
    path("", views.index, name="index"),
    path("register/", views.register, name="register"),
    path("<int:pk>/", views.detail, name="detail"),
    path("<int:pk>/test/", views.test, name="test"),
    path("<int:pk>/delete/", views.delete, name="delete"),
]

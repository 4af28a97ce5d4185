"""What work cost."""

from __future__ import annotations

from django.urls import path

from webapp.runs import cost_views

app_name = "costs"

urlpatterns = [path("", cost_views.index, name="index")]

"""Runs: list, launch, watch, cancel, retry."""

from __future__ import annotations

from django.urls import path

from webapp.runs import launch_views, turn_views, views, worker_views

app_name = "runs"

urlpatterns = [
    path("", views.index, name="index"),
    path("list/", views.index_live, name="index_live"),
    path("distil/", launch_views.distil, name="distil"),
    path("distil/recipe/", launch_views.distil_recipe, name="distil_recipe"),
    path("distil/estimate/", launch_views.distil_estimate, name="distil_estimate"),
    path("distil/check/", launch_views.distil_check, name="distil_check"),
    path("evaluate/", launch_views.evaluate, name="evaluate"),
    path("evaluate/plan/", launch_views.evaluate_plan, name="evaluate_plan"),
    path("import/", launch_views.import_completions, name="import"),
    path("workers/", worker_views.index, name="workers"),
    path("workers/live/", worker_views.live, name="workers_live"),
    path("workers/<int:pk>/drain/", worker_views.drain, name="drain"),
    path("turns/", turn_views.index, name="turns"),
    path("turns/people/<int:pk>/", turn_views.limit, name="limit"),
    path("<int:pk>/", views.detail, name="detail"),
    path("<int:pk>/priority/", turn_views.priority, name="priority"),
    path("<int:pk>/live/", views.live, name="live"),
    path("<int:pk>/checked/", launch_views.checked, name="checked"),
    path("<int:pk>/latest/", views.latest, name="latest"),
    path("<int:pk>/examples/<slug:which>/", views.examples, name="examples"),
    path("<int:pk>/cancel/", views.cancel, name="cancel"),
    path("<int:pk>/retry/", views.retry, name="retry"),
]

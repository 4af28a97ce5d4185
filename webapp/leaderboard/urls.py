"""The leaderboard and the evaluations behind its figures."""

from __future__ import annotations

from django.urls import path

from webapp.leaderboard import views

app_name = "leaderboard"

urlpatterns = [
    path("", views.index, name="index"),
    path("evaluations/<int:pk>/", views.evaluation, name="evaluation"),
    path("evaluations/<int:pk>/problems/<int:problem>/", views.problem, name="problem"),
    path("evaluations/<int:pk>/report.html", views.report_html, name="report_html"),
    path("evaluations/<int:pk>/report.json", views.report_json, name="report_json"),
]

"""The leaderboard and the evaluations behind its figures."""

from __future__ import annotations

from django.urls import path

from webapp.leaderboard import board_views, compare_views, views

app_name = "leaderboard"

urlpatterns = [
    path("", board_views.index, name="index"),
    path("leaderboard.csv", board_views.as_csv, name="csv"),
    path("compare/", compare_views.index, name="compare"),
    path("compare/differences.csv", compare_views.differences_csv, name="compare_csv"),
    path("compare/problems.csv", compare_views.problems_csv, name="compare_problems_csv"),
    path("compare/problems/<int:problem>/", compare_views.problem, name="compare_problem"),
    path("evaluations/<int:pk>/", views.evaluation, name="evaluation"),
    path("evaluations/<int:pk>/problems/<int:problem>/", views.problem, name="problem"),
    path("evaluations/<int:pk>/report.html", views.report_html, name="report_html"),
    path("evaluations/<int:pk>/report.json", views.report_json, name="report_json"),
]

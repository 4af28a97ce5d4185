"""The leaderboard and the evaluations behind its figures."""

from __future__ import annotations

from django.urls import path

from webapp.leaderboard import (
    board_views,
    closely_views,
    compare_views,
    dispute_views,
    report_views,
    reports,
)

app_name = "leaderboard"
SAMPLE = "evaluations/<int:pk>/problems/<int:problem>/samples/<int:sample>"

urlpatterns = [
    path("", board_views.index, name="index"),
    path("leaderboard.csv", board_views.as_csv, name="csv"),
    path("compare/", compare_views.index, name="compare"),
    path("compare/differences.csv", compare_views.differences_csv, name="compare_csv"),
    path("compare/problems.csv", compare_views.problems_csv, name="compare_problems_csv"),
    path("compare/problems/<int:problem>/", compare_views.problem, name="compare_problem"),
    path("evaluations/<int:pk>/", closely_views.evaluation, name="evaluation"),
    path("evaluations/<int:pk>/problems/<int:problem>/", closely_views.problem, name="problem"),
    path(f"{SAMPLE}/raw.txt", closely_views.raw, name="raw"),
    path(f"{SAMPLE}/dispute/", dispute_views.dispute, name="dispute"),
    path(f"{SAMPLE}/<str:which>/", closely_views.part, name="part"),
    path("evaluations/<int:pk>/disputes/", dispute_views.index, name="disputes"),
    path("evaluations/<int:pk>/disputes/score/", dispute_views.score, name="disputed_score"),
    path("evaluations/<int:pk>/disputes.jsonl", dispute_views.export, name="disputes_jsonl"),
    path(
        "evaluations/<int:pk>/disputes/<int:dispute>/withdraw/",
        dispute_views.withdraw,
        name="withdraw",
    ),
    path("evaluations/<int:pk>/reports/", report_views.index, name="reports"),
    path("evaluations/<int:pk>/reports/live/", report_views.live, name="reports_live"),
    path("evaluations/<int:pk>/reports/ask/", report_views.ask, name="ask_report"),
    path("evaluations/<int:pk>/reports/<int:report>/", report_views.download, name="download"),
    *(
        path(
            f"evaluations/<int:pk>/report.{form}",
            report_views.report,
            {"form": form},
            name=f"report_{form}",
        )
        for form in reports.AT_ONCE
    ),
    path("signing-key/", report_views.key, name="signing_key"),
]

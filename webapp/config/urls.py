"""Every address: an app each; the leaderboard is the front page."""

from django.urls import include, path

urlpatterns = [
    path("", include("webapp.monitoring.urls")),
    path("", include("webapp.leaderboard.urls")),
    path("accounts/tokens/", include("webapp.api.token_urls")),
    path("accounts/", include("webapp.core.urls")),
    path("api/", include("webapp.api.urls")),
    path("benchmarks/", include("webapp.benchmarks.urls")),
    path("checkpoints/", include("webapp.checkpoints.urls")),
    path("costs/", include("webapp.runs.cost_urls")),
    path("endpoints/", include("webapp.endpoints.urls")),
    path("notifications/", include("webapp.notifications.urls")),
    path("projects/", include("webapp.projects.urls")),
    path("runs/", include("webapp.runs.urls")),
    path("storage/", include("webapp.housekeeping.urls")),
]

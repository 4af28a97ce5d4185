"""What the pages of endpoints show."""

from __future__ import annotations

from django.db.models import QuerySet

from webapp.checkpoints.queries import evaluation_count
from webapp.core.models import User
from webapp.endpoints.models import Endpoint
from webapp.projects.access import seen_by


def endpoints(viewer: User) -> QuerySet[Endpoint]:
    """The endpoints that ``viewer`` sees, newest first, and how many evaluations of each."""
    return (
        seen_by(viewer, Endpoint.objects.all(), "checkpoint__project")
        .select_related("checkpoint__project", "owner")
        .annotate(evaluation_count=evaluation_count(viewer, "checkpoint", "checkpoint"))
        .order_by("-created_at")
    )

"""What the pages of endpoints show."""

from __future__ import annotations

from django.db.models import Count, QuerySet

from webapp.endpoints.models import Endpoint


def endpoints() -> QuerySet[Endpoint]:
    """All endpoints, newest first, with the number of their evaluations; without their keys."""
    return (
        Endpoint.objects.select_related("checkpoint", "owner")
        .annotate(evaluation_count=Count("checkpoint__evaluations"))
        .order_by("-created_at")
    )

"""What people say of a checkpoint, and where it lies: all that was given is kept, or none of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import transaction

from webapp.checkpoints.models import Checkpoint
from webapp.checkpoints.moving import move
from webapp.core import audit
from webapp.core.models import User


def save(user: User, checkpoint: Checkpoint, given: Mapping[str, Any]) -> None:
    """Keep what a DetailsForm found; a ``project`` that is another moves it there.

    Raises UserError or PermissionDenied as :func:`webapp.checkpoints.moving.move` does.
    """
    words = {name: value for name, value in given.items() if name != "project"}
    project = given.get("project", checkpoint.project)
    with transaction.atomic():
        Checkpoint.objects.filter(pk=checkpoint.pk).update(**words)
        audit.record(user, "checkpoint.describe", checkpoint)
        if project != checkpoint.project:
            audit.record(user, "checkpoint.move", checkpoint, to=project.name)
            move(checkpoint, project, by=user)

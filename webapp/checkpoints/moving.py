"""Moving a checkpoint to another project, by somebody who is admin of both."""

from __future__ import annotations

from django.db import transaction
from django.db.models import Q, QuerySet

from webapp.checkpoints.models import Checkpoint, Upload
from webapp.core.errors import UserError
from webapp.core.models import User
from webapp.endpoints.models import Endpoint
from webapp.housekeeping.removal import runs_using
from webapp.projects.access import projects_of, require
from webapp.projects.models import Project, Role
from webapp.runs.models import FINAL_STATES, Run
from webapp.runs.naming import told_runs


def places_to_move(user: User, checkpoint: Checkpoint) -> QuerySet[Project]:
    """The projects that the person can have it in, its own among them; none where they decide
    about no second one.
    """
    ruled = projects_of(user, Role.ADMIN)
    keys = set(ruled.values_list("pk", flat=True))
    return ruled if checkpoint.project_id in keys and len(keys) > 1 else ruled.none()


def move(checkpoint: Checkpoint, project: Project, *, by: User) -> None:
    """Have it lie in ``project``, with its endpoint and where it came from.

    Scores stay with the runs that made them. Raises PermissionDenied where ``by`` is not admin of
    both projects; UserError while an unfinished run uses it that would lose sight of it.
    """
    require(by, project.pk, Role.ADMIN)
    with transaction.atomic():
        # As for a deletion: no run begins to use it meanwhile.
        locked = Checkpoint.objects.select_for_update().get(pk=checkpoint.pk)
        require(by, locked.project_id, Role.ADMIN)
        if not project.open and (told := told_runs(by, _losing_sight(locked, project))):
            raise UserError(
                f"project: {told} would lose sight of it in {project.name!r}; wait for the end or "
                "cancel.",
                "project",
            )
        Checkpoint.objects.filter(pk=locked.pk).update(project=project)
        Upload.objects.filter(checkpoint=locked).update(project=project)


def _losing_sight(checkpoint: Checkpoint, project: Project) -> QuerySet[Run]:
    """Unfinished runs of other projects that use it."""
    using = Q(pk__in=runs_using(checkpoint).values("pk"))
    for pk in Endpoint.objects.filter(checkpoint=checkpoint).values_list("pk", flat=True):
        using |= Q(stages__config__endpoint=pk)
    return Run.objects.filter(using).exclude(state__in=FINAL_STATES).exclude(project=project)

"""Deleting and archiving checkpoints and runs: what hangs on them is named before it goes."""

from __future__ import annotations

from dataclasses import dataclass, field

from django.db import models, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from webapp.checkpoints.models import Checkpoint
from webapp.core.errors import UserError
from webapp.core.models import User
from webapp.housekeeping import garbage
from webapp.housekeeping.models import ArchivedRun
from webapp.projects.access import managed_by, seen_by
from webapp.runs.models import FINAL_STATES, Evaluation, Run

NAMED = 50  # of each kind; the rest is counted


@dataclass(frozen=True, slots=True)
class Group:
    """Dependents of one kind: what becomes of them, how many there are, and the first of them.

    Those of projects that the reader is not in are counted and not named.
    """

    fate: str  # "goes" with it, "stays" without it
    sentence: str
    count: int
    first: list[models.Model]
    elsewhere: int = 0  # in projects that the reader is not in

    @property
    def more(self) -> int:
        """How many of those that the reader may see are not named."""
        return self.count - self.elsewhere - len(self.first)


@dataclass(frozen=True, slots=True)
class Dependents:
    """What hangs on a checkpoint or run. While something blocks, it cannot be deleted."""

    blocking: list[Group] = field(default_factory=list)
    others: list[Group] = field(default_factory=list)  # blocks its deletion, its files may go
    groups: list[Group] = field(default_factory=list)
    freed_bytes: int = 0  # on the disk; nought where others share the files

    @property
    def blocked(self) -> str:
        """Why it cannot be deleted now, in one sentence; blank where it can."""
        return _first_sentence(self.blocking + self.others)


def dependents_of_checkpoint(checkpoint: Checkpoint, *, by: User) -> Dependents:
    """What hangs on a checkpoint that ``by`` would delete.

    Scores go with it only where ``by`` decides about the runs that made them: a score is its run's,
    whosever the checkpoint is.
    """
    using = runs_using(checkpoint)
    doomed = _runs_only_of(checkpoint)
    shared = (
        Checkpoint.objects.filter(path=checkpoint.path).exclude(pk=checkpoint.pk)
        if checkpoint.path
        else Checkpoint.objects.none()
    )
    measured = _evaluations(checkpoint)
    of_others = measured.exclude(run__in=managed_by(by, Run.objects.all()))
    others = _groups(
        by,
        ("blocks", "Others measured it and would lose their scores; archive it or delete its files "
         "only, or ask an admin.", of_others),
    )  # fmt: skip
    groups = _groups(
        by,
        ("goes", "Evaluations of it, with their scores and completions", measured),
        ("goes", "Runs that did nothing else", doomed),
        ("stays", "Runs that used it, whose lineage then ends here", using.exclude(pk__in=doomed)),
        ("stays", "Students of it, whose lineage then ends here", checkpoint.children.all()),
        ("stays", "Checkpoints with the same files, which stay on the disk", shared),
    )
    size = 0 if not checkpoint.path or shared.exists() else checkpoint.size_bytes or 0
    return Dependents(_blocking_files(checkpoint, by), others, groups, size)


def dependents_of_run(run: Run, *, by: User) -> Dependents:
    """What hangs on a run that ``by`` would delete."""
    unfinished = Run.objects.filter(pk=run.pk).exclude(state__in=FINAL_STATES)
    return Dependents(
        blocking=_groups(by, ("blocks", "It is not finished; cancel it first.", unfinished)),
        groups=_groups(
            by,
            ("goes", "Evaluations, with their scores and completions",
             run.evaluations.select_related("checkpoint", "benchmark")),
            ("stays", "Checkpoints that it made, whose lineage then ends here", run.products.all()),
        ),
        freed_bytes=garbage.size_of(garbage.place(f"runs/{run.pk}")),
    )  # fmt: skip


def delete_checkpoint(checkpoint: Checkpoint, *, by: User) -> None:
    """Delete a checkpoint with its evaluations; its files go with their last name.

    Raises UserError while an unfinished run uses it, and where runs measured it that ``by`` does
    not decide about.
    """
    with transaction.atomic():
        locked = Checkpoint.objects.select_for_update().get(pk=checkpoint.pk)
        _refuse(dependents_of_checkpoint(locked, by=by).blocked)
        doomed = list(_runs_only_of(locked).values_list("pk", flat=True))
        path = locked.path
        locked.delete()
        Run.objects.filter(pk__in=doomed).delete()
        garbage.sweep_after_commit(path, *(f"runs/{pk}" for pk in doomed))


def release_files(checkpoint: Checkpoint, *, by: User) -> None:
    """Delete a checkpoint's files only: it stays with its scores and lineage, and answers no more.

    Raises UserError while an unfinished run uses it, or where there are none.
    """
    with transaction.atomic():
        locked = Checkpoint.objects.select_for_update().get(pk=checkpoint.pk)
        if not locked.path:
            raise UserError(f"{locked.name}: has no files here.")
        _refuse(_first_sentence(_blocking_files(locked, by)))
        path = locked.path
        Checkpoint.objects.filter(pk=locked.pk).update(path="")
        garbage.sweep_after_commit(path)


def delete_run(run: Run, *, by: User) -> None:
    """Delete a run that has ended, with its evaluations and files. Raises UserError."""
    with transaction.atomic():
        locked = Run.objects.select_for_update().get(pk=run.pk)
        _refuse(dependents_of_run(locked, by=by).blocked)
        path = f"runs/{locked.pk}"
        locked.delete()
        garbage.sweep_after_commit(path)


def set_archived(thing: Checkpoint | Run, *, archived: bool) -> None:
    """Take it out of lists and forms, or put it back; its figures stay where they are."""
    if isinstance(thing, Run) and archived and thing.state not in FINAL_STATES:
        raise UserError("It is not finished; cancel it, or wait for its end.")
    if isinstance(thing, Checkpoint):
        since = timezone.now() if archived else None
        Checkpoint.objects.filter(pk=thing.pk).update(archived_at=since)
    elif archived:
        ArchivedRun.objects.get_or_create(run=thing)
    else:
        ArchivedRun.objects.filter(run=thing).delete()


def _refuse(sentence: str) -> None:
    if sentence:
        raise UserError(sentence)


def _first_sentence(groups: list[Group]) -> str:
    return groups[0].sentence if groups else ""


def _blocking_files(checkpoint: Checkpoint, by: User) -> list[Group]:
    """What keeps a checkpoint's files, and so the checkpoint."""
    unfinished = runs_using(checkpoint).exclude(state__in=FINAL_STATES)
    return _groups(
        by,
        ("blocks", "An unfinished run uses it; cancel the run first.", unfinished),
        ("blocks", "An endpoint serves it; delete the endpoint first.", _endpoints(checkpoint)),
    )


def _evaluations(checkpoint: Checkpoint) -> QuerySet[Evaluation]:
    return checkpoint.evaluations.select_related("benchmark", "checkpoint")


def _endpoints(checkpoint: Checkpoint) -> QuerySet[models.Model]:
    from webapp.endpoints.models import Endpoint

    return Endpoint.objects.filter(checkpoint=checkpoint)


def runs_using(checkpoint: Checkpoint) -> QuerySet[Run]:
    """Runs that measure it, draw from it or train it."""
    return Run.objects.filter(
        Q(pk__in=Evaluation.objects.filter(checkpoint=checkpoint).values("run"))
        | Q(stages__config__teacher=checkpoint.pk)
        | Q(stages__config__base=checkpoint.pk)
    ).distinct()


def _runs_only_of(checkpoint: Checkpoint) -> QuerySet[Run]:
    """Evaluation runs that would be left with nothing."""
    others = Evaluation.objects.exclude(checkpoint=checkpoint).values("run")
    return Run.objects.filter(
        kind=Run.Kind.EVALUATION,
        pk__in=Evaluation.objects.filter(checkpoint=checkpoint).values("run"),
    ).exclude(pk__in=others)


# Model → the way to the project that its rows lie in.
_WAYS = {"evaluation": "run__project", "endpoint": "checkpoint__project"}


def _groups(by: User, *kinds: tuple[str, str, QuerySet[models.Model]]) -> list[Group]:
    found = []
    for fate, sentence, rows in kinds:
        count = rows.count()
        if count:
            seen = seen_by(by, rows, _WAYS.get(str(rows.model._meta.model_name), "project"))
            elsewhere = 0 if by.is_staff else count - seen.count()
            found.append(Group(fate, sentence, count, list(seen[:NAMED]), elsewhere))
    return found

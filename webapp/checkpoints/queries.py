"""What the checkpoint pages show."""

from __future__ import annotations

from django.db.models import Count, F, QuerySet, Sum
from django.db.models.functions import Coalesce

from webapp.checkpoints.models import LIVE_UPLOADS, Checkpoint, Upload
from webapp.core.models import User
from webapp.runs.models import Evaluation
from webapp.runs.queries import with_open_stage


def checkpoints() -> QuerySet[Checkpoint]:
    """All checkpoints, newest first, with parents and the number of their evaluations."""
    return (
        Checkpoint.objects.select_related("parent", "produced_by", "owner", "endpoint")
        .annotate(evaluation_count=Count("evaluations"))
        .order_by("-created_at")
    )


def undecontaminated() -> frozenset[int]:
    """Students whose recipe compared their prompts with no benchmark, and what descends from them.

    Every score of theirs has to say so (PROTOCOLS §5).
    """
    found: set[int] = set()
    born = Checkpoint.objects.filter(produced_by__config__decontaminate=False)
    while new := set(born.values_list("pk", flat=True)) - found:
        found |= new
        born = Checkpoint.objects.filter(parent__in=new)
    return frozenset(found)


def with_files() -> QuerySet[Checkpoint]:
    """Checkpoints that can be run: those whose files are here."""
    return Checkpoint.objects.exclude(path="").order_by("name")


def runnable() -> QuerySet[Checkpoint]:
    """Checkpoints that can answer: those with files, and models that an endpoint serves."""
    return (
        Checkpoint.objects.exclude(path="", endpoint=None)
        .select_related("endpoint")
        .order_by("name")
    )


def evaluations_of(checkpoint: Checkpoint) -> QuerySet[Evaluation]:
    """A checkpoint's evaluations, newest first."""
    found = (
        Evaluation.objects.filter(checkpoint=checkpoint)
        .select_related("benchmark", "run")
        .defer("protocol", "rendered_prompt", "run__config")
    )
    return with_open_stage(found).order_by("benchmark__name", "-created_at")


def uploads() -> QuerySet[Upload]:
    """All uploads with their files' number, bytes here and bytes in all."""
    return Upload.objects.select_related("checkpoint").annotate(
        file_count=Count("files"),
        here_bytes=Coalesce(Sum("files__offset_bytes"), 0),
        total_bytes=Coalesce(Sum("files__length_bytes"), 0),
    )


def unfinished_uploads(owner: User) -> QuerySet[Upload]:
    """A person's uploads that are not through, the latest touched first."""
    found = uploads().filter(owner=owner, state__in=LIVE_UPLOADS)
    return found.order_by(F("touched_at").desc())

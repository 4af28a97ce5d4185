"""What the checkpoint pages show."""

from __future__ import annotations

from collections.abc import Sequence

from django.db.models import Count, F, QuerySet, Sum
from django.db.models.functions import Coalesce

from webapp.checkpoints.models import LIVE_UPLOADS, Checkpoint, Upload
from webapp.core.models import User
from webapp.runs.models import Evaluation
from webapp.runs.queries import with_open_stage


def checkpoints(*, archived: bool = False, tag: str = "") -> QuerySet[Checkpoint]:
    """Checkpoints, newest first, with parents and the number of their evaluations.

    Those in use, or the archived ones; only those with ``tag`` where one is given.
    """
    found = one().filter(archived_at__isnull=not archived)
    if tag:
        found = found.filter(tags__contains=[tag])
    return found.annotate(evaluation_count=Count("evaluations")).order_by("-created_at")


def one() -> QuerySet[Checkpoint]:
    """Checkpoints with what their page names."""
    return Checkpoint.objects.select_related(
        "parent__produced_by", "produced_by", "owner", "endpoint"
    )


def tags() -> list[str]:
    """Every tag that a checkpoint in use has."""
    used = Checkpoint.objects.filter(archived_at=None).exclude(tags=[])
    return sorted({tag for each in used.values_list("tags", flat=True) for tag in each})


def archived_count() -> int:
    """How many checkpoints the list leaves out."""
    return Checkpoint.objects.exclude(archived_at=None).count()


def versus_parent(checkpoint: Checkpoint, evaluations: Sequence[Evaluation]) -> list[int]:
    """The newest scored evaluation of the checkpoint on a benchmark and its parent's on the same;
    empty where there is no such pair.
    """
    if checkpoint.parent is None:
        return []
    scored = Evaluation.objects.filter(checkpoint=checkpoint.parent).exclude(pass_at_1=None)
    theirs = dict(scored.order_by("pk").values_list("benchmark_id", "pk"))
    for mine in sorted(evaluations, key=lambda each: -each.pk):
        if mine.pass_at_1 is not None and mine.benchmark_id in theirs:
            return [mine.pk, theirs[mine.benchmark_id]]
    return []


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
    return Checkpoint.objects.filter(archived_at=None).exclude(path="").order_by("name")


def runnable() -> QuerySet[Checkpoint]:
    """Checkpoints that can answer: those with files, and models that an endpoint serves."""
    return (
        Checkpoint.objects.filter(archived_at=None)
        .exclude(path="", endpoint=None)
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

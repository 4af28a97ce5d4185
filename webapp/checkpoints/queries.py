"""What the checkpoint pages show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from django.db import connection
from django.db.models import Count, F, OuterRef, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce

from webapp.checkpoints.models import LIVE_UPLOADS, Checkpoint, Upload
from webapp.core.models import User
from webapp.projects.access import managed_by, projects_of, seen_by
from webapp.projects.models import Role
from webapp.runs.models import Evaluation
from webapp.runs.queries import with_open_stage


def checkpoints(viewer: User, *, archived: bool = False, tag: str = "") -> QuerySet[Checkpoint]:
    """Checkpoints that ``viewer`` sees, newest first, with parents and the number of evaluations.

    Those in use, or the archived ones; only those with ``tag`` where one is given.
    """
    found = one(viewer).filter(archived_at__isnull=not archived)
    if tag:
        found = found.filter(tags__contains=[tag])
    return found.annotate(evaluation_count=evaluation_count(viewer, "checkpoint")).order_by(
        "-created_at"
    )


def one(viewer: User) -> QuerySet[Checkpoint]:
    """Checkpoints that ``viewer`` sees, with what their page names."""
    return seen_by(viewer, Checkpoint.objects.all()).select_related(
        "parent__produced_by", "produced_by", "owner", "endpoint", "project"
    )


def evaluation_count(viewer: User, of: str, outer: str = "pk") -> Coalesce:
    """How many evaluations ``viewer`` sees of the row's ``outer``, which their ``of`` names.

    Counted for each row by itself, so that of a long list only the page's rows are counted.
    """
    seen = seen_by(viewer, Evaluation.objects.filter(**{of: OuterRef(outer)}), "run__project")
    counted = seen.order_by().values(of).annotate(count=Count("pk")).values("count")
    return Coalesce(Subquery(counted), 0)


def tags(viewer: User) -> list[str]:
    """Every tag that a checkpoint in use, which ``viewer`` sees, has."""
    used = seen_by(viewer, Checkpoint.objects.filter(archived_at=None).exclude(tags=[]))
    return sorted({tag for each in used.values_list("tags", flat=True) for tag in each})


def archived_count(viewer: User) -> int:
    """How many checkpoints the list leaves out."""
    return seen_by(viewer, Checkpoint.objects.exclude(archived_at=None)).count()


def versus_parent(
    viewer: User, checkpoint: Checkpoint, evaluations: Sequence[Evaluation]
) -> list[int]:
    """The newest scored evaluation of the checkpoint on a benchmark and its parent's on the same;
    empty where ``viewer`` sees no such pair.
    """
    if checkpoint.parent_id is None:
        return []
    scored = Evaluation.objects.filter(
        checkpoint__in=seen_by(viewer, Checkpoint.objects.filter(pk=checkpoint.parent_id))
    ).exclude(pass_at_1=None)
    seen = seen_by(viewer, scored, "run__project").order_by("pk")
    theirs = dict(seen.values_list("benchmark_id", "pk"))
    for mine in sorted(evaluations, key=lambda each: -each.pk):
        if mine.pass_at_1 is not None and mine.benchmark_id in theirs:
            return [mine.pk, theirs[mine.benchmark_id]]
    return []


# From each of the checkpoints upwards; UNION ends a loop of parents, which no form makes. The
# subqueries look up one row each; the planner, who cannot know how short ancestries are, would
# join tables whole.
UNDECONTAMINATED = """
WITH RECURSIVE ancestry (descendant, ancestor) AS (
    SELECT pk, pk FROM unnest(%s::bigint[]) AS asked (pk)
    UNION
    SELECT descendant, (SELECT parent_id FROM checkpoints_checkpoint WHERE id = ancestor)
    FROM ancestry WHERE ancestor IS NOT NULL
)
SELECT DISTINCT descendant FROM ancestry
WHERE (
    SELECT birth.config -> 'decontaminate'
    FROM checkpoints_checkpoint AS one JOIN runs_run AS birth ON birth.id = one.produced_by_id
    WHERE one.id = ancestor
) = 'false'
"""


def undecontaminated(among: Iterable[int | None]) -> frozenset[int]:
    """Which of the checkpoints ``among`` were made by a recipe that compared its prompts with no
    benchmark, or descend from one that was: one query, which reads them and their ancestors.

    Every score of theirs has to say so (PROTOCOLS §5).
    """
    with connection.cursor() as cursor:
        cursor.execute(UNDECONTAMINATED, [[pk for pk in set(among) if pk is not None]])
        return frozenset(pk for (pk,) in cursor.fetchall())


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


def evaluations_of(viewer: User, checkpoint: Checkpoint) -> QuerySet[Evaluation]:
    """A checkpoint's evaluations that ``viewer`` sees, newest first."""
    found = (
        Evaluation.objects.filter(checkpoint=checkpoint)
        .select_related("benchmark", "run")
        .defer("protocol", "rendered_prompt", "run__config")
    )
    return with_open_stage(seen_by(viewer, found, "run__project")).order_by(
        "benchmark__name", "-created_at"
    )


def uploads(decider: User) -> QuerySet[Upload]:
    """Uploads that ``decider`` may discard, with their files' number, bytes here and in all.

    Nobody else learns that they are there.
    """
    return managed_by(
        decider, Upload.objects.select_related("checkpoint", "owner", "project")
    ).annotate(
        file_count=Count("files"),
        here_bytes=Coalesce(Sum("files__offset_bytes"), 0),
        total_bytes=Coalesce(Sum("files__length_bytes"), 0),
    )


def own_uploads(owner: User) -> QuerySet[Upload]:
    """The person's own uploads, in projects that take new things from them (still)."""
    found = Upload.objects.filter(owner=owner)
    if owner.is_staff:
        return found
    return found.filter(project__in=projects_of(owner, Role.OPERATOR).order_by().values("pk"))


def unfinished_uploads(decider: User) -> QuerySet[Upload]:
    """Uploads that are not through and the person decides about, the latest touched first."""
    return uploads(decider).filter(state__in=LIVE_UPLOADS).order_by(F("touched_at").desc())

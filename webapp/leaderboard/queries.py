"""What the leaderboard reads: in a number of queries that does not grow with its rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from django.db.models import Count as Counted
from django.db.models import Exists, OuterRef, QuerySet
from django.db.models.fields.json import KeyTransform

from evaluator.protocol import PRESETS
from evaluator.statistics import Count
from webapp.checkpoints.models import Checkpoint
from webapp.core.models import User
from webapp.leaderboard import evaluations, passports
from webapp.projects.access import seen_by
from webapp.runs.models import Evaluation

_ARCHITECTURE_ENDINGS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a checkpoint apart from its scores; blank where nothing is."""

    pk: int
    name: str
    family: str
    parameters: int | None
    dtype: str
    teacher: str
    owner: str
    tags: tuple[str, ...]
    parent: int | None
    is_parent: bool

    @property
    def is_student(self) -> bool:
        """Whether it was trained from another checkpoint, or by a distillation."""
        return self.parent is not None or bool(self.teacher)


@dataclass(frozen=True, slots=True)
class Measured:
    """An evaluation's figures; of its metrics the summary."""

    pk: int
    checkpoint: int
    benchmark: str
    samples: int
    sampling: Mapping[str, Any] | None  # the protocol's
    measurement_hash: str
    created_at: datetime
    project: str
    engine: Mapping[str, Any]
    metrics: Mapping[str, Any]

    @property
    def complete(self) -> bool:
        """Whether every sample has a verdict."""
        return bool(self.metrics.get("complete"))

    @property
    def temperature(self) -> float | None:
        """At which the samples were drawn."""
        return (self.sampling or {}).get("temperature")

    @property
    def is_drawn_as_published(self) -> bool:
        """Whether sampling and token limit are those of ``r1``, as published figures' are."""
        theirs = PRESETS["r1"].sampling
        return all(
            (self.sampling or {}).get(name) == getattr(theirs, name)
            for name in ("temperature", "top_p", "max_tokens")
        )

    @property
    def is_imported(self) -> bool:
        """Whether the completions came in a file; nothing shows that the checkpoint wrote them."""
        return self.engine.get("name") == "replay"

    @property
    def served_as(self) -> str:
        """Model and address where an endpoint answered; blank for a checkpoint."""
        if self.engine.get("name") != "openai":
            return ""
        host = urlsplit(str(self.engine.get("base_url", ""))).netloc
        return f"{self.engine.get('model', '')} at {host}"


def scored(user: User, project: str = "") -> QuerySet[Evaluation]:
    """What stands on the person's leaderboard: graded, of checkpoints that they see.

    ``project`` is the name of the one whose runs are meant; blank is all that they see.
    """
    found = seen_by(user, evaluations.seen(user), "checkpoint__project").filter(
        metrics__isnull=False, checkpoint__isnull=False, checkpoint__archived_at=None
    )
    return found.filter(run__project__name=project) if project else found


def benchmarks(user: User) -> list[tuple[str, str, str, int]]:
    """(name, newest title, project, evaluations) of what was measured, in order of names."""
    rows = (
        scored(user)
        .order_by("benchmark__name", "benchmark__created_at")
        .values_list("benchmark__name", "benchmark__title", "run__project__name")
        .annotate(count=Counted("pk"))
    )
    titles = {name: title for name, title, _, _ in rows}
    return [(name, titles[name], project, count) for name, _, project, count in rows]


def checkpoints(user: User, among: QuerySet[Evaluation]) -> dict[int, Facts]:
    """The checkpoints that have a score ``among`` these, by primary key."""
    students = seen_by(user, Checkpoint.objects.filter(parent=OuterRef("pk")))
    rows = (
        Checkpoint.objects.filter(Exists(among.filter(checkpoint=OuterRef("pk"))))
        .annotate(
            teacher=KeyTransform("teacher", "produced_by__config"),
            is_parent=Exists(students),
        )
        .order_by("pk")
        .values_list(
            "pk", "name", "architecture", "parameters", "dtype", "teacher", "owner__username",
            "tags", "parent_id", "is_parent",
        )
    )  # fmt: skip
    return {
        pk: Facts(
            pk, name, family_of(architecture), parameters, dtype, str(teacher or ""), owner,
            tuple(tags), parent, is_parent,
        )
        for pk, name, architecture, parameters, dtype, teacher, owner, tags, parent, is_parent
        in rows
    }  # fmt: skip


def family_of(architecture: str) -> str:
    """The architecture without what its model is for: Qwen2 of Qwen2ForCausalLM."""
    for ending in _ARCHITECTURE_ENDINGS:
        architecture = architecture.removesuffix(ending)
    return architecture


def measured(evaluations: Iterable[int]) -> list[Measured]:
    """What the leaderboard shows of these evaluations: one query. Texts stay in the database."""
    rows = (
        Evaluation.objects.filter(pk__in=list(evaluations))
        .order_by()
        .annotate(sampling=KeyTransform("sampling", "protocol"))
        .values_list(
            "pk", "checkpoint_id", "benchmark__name", "samples", "sampling",
            "measurement_hash", "created_at", "run__project__name", "engine", "summary",
        )
    )  # fmt: skip
    return [Measured(*row) for row in rows]


def counts(evaluations: Iterable[int]) -> dict[int, tuple[Count, ...]]:
    """(correct, samples) of each problem, of complete evaluations: no sample has no verdict."""
    rows = Evaluation.objects.filter(pk__in=list(evaluations)).order_by()
    return {
        pk: tuple((right, samples) for right in correct)
        for pk, samples, correct in rows.values_list("pk", "samples", "correct_counts")
    }


def differences(evaluations: Iterable[int], usual: Mapping[str, int]) -> dict[int, list[str]]:
    """In which fields these evaluations were measured otherwise than their benchmark's usual one.

    ``usual`` holds an evaluation of the usual measurement by the benchmark's name.
    """
    wanted = set(evaluations)
    rows = (
        Evaluation.objects.filter(pk__in=wanted | set(usual.values()))
        .order_by()
        .annotate(known=KeyTransform("measurement", "metrics"))
        .values_list("pk", "benchmark__name", "known", "protocol", "benchmark__content_hash")
    )
    found = {
        pk: (name, passports.measurement(known, protocol, problems))
        for pk, name, known, protocol, problems in rows
    }
    return {
        pk: passports.names(fields, found[usual[name]][1])
        for pk, (name, fields) in found.items()
        if pk in wanted
    }

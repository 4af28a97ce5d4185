"""What the leaderboard reads: in a number of queries that does not grow with its rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from django.contrib.postgres.fields import ArrayField
from django.db.models import Exists, F, Func, JSONField, OuterRef, TextField, Value
from django.db.models.fields.json import KeyTransform

from evaluator.protocol import PRESETS
from evaluator.statistics import Count
from webapp.checkpoints.models import Checkpoint
from webapp.leaderboard import passports
from webapp.runs.models import Evaluation

# Of an evaluation's metrics, what a leaderboard never shows: most of their bytes.
_LARGE = ["per_problem", "by", "measurement", "run"]
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
    """The newest evaluation of a checkpoint under one measurement hash; metrics without texts."""

    pk: int
    checkpoint: int
    benchmark: str
    samples: int
    sampling: Mapping[str, Any] | None  # the protocol's
    measurement_hash: str
    created_at: datetime
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


def _scored() -> Any:
    return Evaluation.objects.filter(metrics__isnull=False, checkpoint__isnull=False)


def benchmarks() -> dict[str, tuple[str, int]]:
    """(title, evaluations) of every benchmark that something was measured on, by name."""
    rows = (
        _scored()
        .filter(checkpoint__archived_at=None)
        .order_by("benchmark__name", "-benchmark__created_at")
        .values_list("benchmark__name", "benchmark__title")
    )
    counts = Counter(name for name, _ in rows)
    titles = dict(reversed(list(rows)))
    return {name: (titles[name], counts[name]) for name in sorted(counts)}


def checkpoints() -> dict[int, Facts]:
    """Every checkpoint that has a score and is not archived, by primary key."""
    rows = (
        Checkpoint.objects.filter(archived_at=None)
        .filter(Exists(_scored().filter(checkpoint=OuterRef("pk"))))
        .annotate(
            teacher=KeyTransform("teacher", "produced_by__config"),
            is_parent=Exists(Checkpoint.objects.filter(parent=OuterRef("pk"))),
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


def measured(names: Iterable[str]) -> list[Measured]:
    """The newest evaluation of every checkpoint, benchmark and measurement, on these benchmarks."""
    light = Func(
        F("metrics"),
        Value(_LARGE, output_field=ArrayField(TextField())),
        template="(%(expressions)s)",
        arg_joiner=" - ",
        output_field=JSONField(),
    )
    rows = (
        _scored()
        .filter(benchmark__name__in=list(names), checkpoint__archived_at=None)
        .annotate(
            light=light,
            sampling=KeyTransform("sampling", "protocol"),
        )
        .order_by("checkpoint_id", "benchmark__name", "measurement_hash", "-created_at")
        .distinct("checkpoint_id", "benchmark__name", "measurement_hash")
        .values_list(
            "pk", "checkpoint_id", "benchmark__name", "samples", "sampling",
            "measurement_hash", "created_at", "engine", "light",
        )
    )  # fmt: skip
    return [Measured(*row) for row in rows]


def counts(evaluations: Sequence[int]) -> dict[int, tuple[str, tuple[Count, ...]]]:
    """(hash of the problems' ids, (correct, scored samples) of each), from the metrics."""

    def each(field: str) -> Func:
        path = Value(f"$.per_problem[*].{field}", output_field=TextField())
        return Func(
            F("metrics"), path, template="jsonb_path_query_array(%(expressions)s::jsonpath)",
            output_field=JSONField(),
        )  # fmt: skip

    rows = (
        Evaluation.objects.filter(pk__in=list(evaluations))
        .order_by()
        .annotate(
            ids=Func(each("id"), template="md5((%(expressions)s)::text)", output_field=TextField()),
            right=each("correct"),
            scored=each("n"),
        )
        .values_list("pk", "ids", "right", "scored")
    )
    return {pk: (ids, tuple(zip(right, scored, strict=True))) for pk, ids, right, scored in rows}


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

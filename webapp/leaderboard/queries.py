"""What the leaderboard reads: in a number of queries that does not grow with its rows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from django.db.models.fields.json import KeyTransform

from evaluator.protocol import PRESETS
from webapp.leaderboard import passports
from webapp.leaderboard.memo import Memo
from webapp.runs.models import Evaluation


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


def measured(evaluations: Iterable[int], memo: Memo) -> dict[int, Measured]:
    """What the leaderboard shows of these evaluations, where they are still there.

    One query, or none where all were read before. Texts stay in the database.
    """
    return memo.figures.of(evaluations, _measured)


def _measured(evaluations: Collection[int]) -> dict[int, Measured]:
    rows = (
        Evaluation.objects.filter(pk__in=evaluations, metrics__isnull=False)
        .order_by()
        .annotate(sampling=KeyTransform("sampling", "protocol"))
        .values_list(
            "pk", "checkpoint_id", "benchmark__name", "samples", "sampling",
            "measurement_hash", "created_at", "run__project__name", "engine", "summary",
        )
    )  # fmt: skip
    return {row[0]: Measured(*row) for row in rows}


def counts(evaluations: Sequence[int]) -> dict[int, tuple[list[int], int]]:
    """(correct samples of each problem, samples of a problem) of complete evaluations.

    In their order; what is gone by now is left out.
    """
    rows = Evaluation.objects.filter(pk__in=evaluations, metrics__isnull=False).order_by()
    given = rows.values_list("pk", "correct_counts", "samples")
    held = {pk: (right, samples) for pk, right, samples in given}
    return {pk: held[pk] for pk in evaluations if pk in held}


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
        if pk in wanted and usual.get(name) in found
    }

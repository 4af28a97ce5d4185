"""What the benchmark pages show."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from django.db.models import QuerySet

from evaluator.records import Problem as ProblemRecord
from webapp.benchmarks.models import Benchmark, PromptSet
from webapp.checkpoints.queries import evaluation_count
from webapp.core import store
from webapp.core.models import User


def latest_benchmarks() -> QuerySet[Benchmark]:
    """The newest version of every benchmark, by name."""
    newest = Benchmark.objects.order_by("name", "-created_at").distinct("name").values("pk")
    return Benchmark.objects.filter(pk__in=newest).order_by("name")


def latest_prompt_sets() -> QuerySet[PromptSet]:
    """The newest version of every prompt set, by name."""
    newest = PromptSet.objects.order_by("name", "-created_at").distinct("name").values("pk")
    return PromptSet.objects.filter(pk__in=newest).order_by("name")


def benchmarks(viewer: User) -> QuerySet[Benchmark]:
    """All versions with the number of their evaluations that ``viewer`` sees."""
    counted = Benchmark.objects.annotate(evaluation_count=evaluation_count(viewer, "benchmark"))
    return counted.order_by("name", "-created_at")


def prompt_rows(prompt_set: PromptSet, *, offset: int, limit: int) -> list[ProblemRecord]:
    """Return ``limit`` prompts from ``offset`` on; reads the file no further than that."""

    def rows() -> Iterator[dict[str, Any]]:
        with store.fetch(prompt_set.path).open("rb") as file:
            for index, line in enumerate(file):
                if index >= offset + limit:
                    return
                if index >= offset:
                    yield json.loads(line)

    return [ProblemRecord.from_json(row) for row in rows()]

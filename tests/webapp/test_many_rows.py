"""Pages take as many database queries for many rows as for few, and no more than is pinned here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from evaluator.protocol import PRESETS
from tests.distiller.samples import recipe
from tests.webapp.samples import (
    FUNNEL,
    arithmetic,
    make_benchmark,
    make_checkpoint,
    make_evaluation,
    make_project,
    make_run,
    make_stage,
)
from webapp.core.models import User
from webapp.projects.models import Role
from webapp.runs.models import LedgerEntry, Run, Shard, TrainingPoint

pytestmark = pytest.mark.django_db
FEW, MANY = 3, 9


@pytest.fixture(autouse=True)
def _store(settings: Any, tmp_path: Any) -> None:
    settings.MEDIA_ROOT = tmp_path


def distilled(owner: User, base: Any, number: int) -> Any:
    """A student with its finished run: stages, shards, points and entries of the ledger."""
    run = make_run(
        owner, f"distil {number}", Run.Kind.DISTILLATION,
        config=recipe().model_dump(mode="json"),
    )  # fmt: skip
    for position, kind in enumerate(("generate", "filter", "train")):
        stage = make_stage(run, position, kind, kind, result={"funnel": FUNNEL})
        for index in range(number + 1):
            shard = Shard.objects.create(stage=stage, index=index, state="finished")
            if kind == "train":
                TrainingPoint.objects.create(stage=stage, step=index, values={"loss": 1.0})
            now = timezone.now()
            LedgerEntry.objects.create(
                lease_token=f"{run.pk:08x}-0000-0000-{position:04x}-{index:012x}", user=owner,
                run=run, stage=stage, shard=shard, kind=kind, worker="w", ended="finished",
                started_at=now, ended_at=now, wall_seconds=1, device_seconds=1, cpu_seconds=1,
                prompt_tokens=1, completion_tokens=1, asks_endpoint=False, lost_share=0,
            )  # fmt: skip
    return make_checkpoint(
        owner, f"student {number}", parent=base, produced_by=run, tags=[f"t{number}"]
    )


def filled(owner: User, size: int) -> dict[str, str]:
    """``size`` of everything that a page lists; the pages' addresses by name."""
    problems = arithmetic(4 * size)
    benchmarks = [make_benchmark(problems, name, name) for name in ("arithmetic", "countdown")]
    base = make_checkpoint(owner, "base")
    student = None
    for number in range(size):
        student = distilled(owner, base, number)
        for benchmark in benchmarks:
            for preset in ("quick", "greedy"):
                found = make_evaluation(
                    owner, student, benchmark, problems, samples=size,
                    protocol=PRESETS[preset], seed=number, run=student.produced_by,
                )  # fmt: skip
        make_project(f"project {number}", {owner: Role.OPERATOR})
    assert student is not None
    make_evaluation(owner, base, benchmarks[0], problems, samples=size)
    scored = student.evaluations.filter(benchmark=benchmarks[0]).order_by("pk")
    sides = [each.pk for each in scored][:2]
    problem = found.benchmark.problems.order_by("-position")[0]
    return {
        "leaderboard": "/",
        "leaderboard again": "/",
        "one benchmark": "/?benchmark=arithmetic&sort=arithmetic:cons@n",
        "comparison": f"/compare/?e={sides[0]},{sides[1]}",
        "evaluation": f"/evaluations/{found.pk}/",
        "drill-down": f"/evaluations/{found.pk}/problems/{problem.pk}/",
        "run": f"/runs/{student.produced_by_id}/",
        "runs": "/runs/",
        "checkpoints": "/checkpoints/",
        "checkpoint": f"/checkpoints/{student.pk}/",
        "costs": "/costs/",
        "costs by student": "/costs/?by=student",
        "projects": "/projects/",
    }


# With those of the session and the person; one more than they are. The first one reads the scores.
MOST = {
    "leaderboard": 15, "leaderboard again": 9, "one benchmark": 9, "comparison": 13,
    "evaluation": 16, "drill-down": 11,
    "run": 14, "runs": 9, "checkpoints": 9, "checkpoint": 21, "costs": 5, "costs by student": 7,
    "projects": 5,
}  # fmt: skip


@pytest.fixture
def counted(user: User) -> Callable[[int], dict[str, int]]:
    """Queries of each page with so many rows of everything."""

    def count(size: int) -> dict[str, int]:
        addresses = filled(user, size)
        client = Client()
        client.force_login(user)
        taken = {}
        for name, address in addresses.items():
            with CaptureQueriesContext(connection) as captured:
                response = client.get(address)
            assert response.status_code == 200, address
            taken[name] = len(captured)
        return taken

    return count


def test_no_pages_queries_grow_with_its_rows(counted: Callable[[int], dict[str, int]]) -> None:
    before = transaction.savepoint()
    few = counted(FEW)
    transaction.savepoint_rollback(before)
    many = counted(MANY)
    assert {name: (few[name], many[name]) for name in few if many[name] > few[name]} == {}
    assert {name: count for name, count in many.items() if count > MOST[name]} == {}
    assert set(many) == set(MOST)

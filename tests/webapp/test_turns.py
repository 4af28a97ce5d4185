"""Whose turn it is can be changed by those who may, and says who changed it."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from tests.webapp.samples import make_checkpoint, make_run
from webapp.core.errors import UserError
from webapp.runs import leases, turns
from webapp.runs.models import Run, Shard, Stage, State

pytestmark = pytest.mark.django_db


def open_run(owner: Any, **values: Any) -> Run:
    run = make_run(owner, "r", Run.Kind.EVALUATION, State.QUEUED, **values)
    stage = Stage.objects.create(run=run, position=0, kind="evaluate", title="t", state="queued")
    Shard.objects.create(stage=stage, index=0)
    return run


def test_a_raised_run_is_next_although_an_older_one_waits(user: Any, admin: Any) -> None:
    older, younger = open_run(user), open_run(user)
    turns.set_priority(younger, 5, by=admin)
    turns.set_priority(older, -1, by=user)
    claims = [leases.claim("w"), leases.claim("w")]
    assert [claim.run_id for claim in claims if claim] == [younger.pk, older.pk]


@pytest.mark.parametrize(
    ("who", "before", "after", "part"),
    [
        ("owner", 0, 1, "only staff may raise"),
        ("owner", -3, -2, "only staff may raise"),
        ("stranger", 0, -1, "only the run's owner and admins"),
        ("staff", 0, 101, "from -100 to 100"),
        ("staff", 0, -101, "from -100 to 100"),
        ("owner", 0, -1, None),
        ("owner", 5, 4, None),
        ("staff", 0, 100, None),
    ],
)
def test_who_may_change_a_priority(
    user: Any, admin: Any, django_user_model: Any, who: str, before: int, after: int, part: Any
) -> None:
    stranger = django_user_model.objects.create_user("eve")
    run = open_run(user, priority=before)
    by = {"owner": user, "stranger": stranger, "staff": admin}[who]
    if part is None:
        turns.set_priority(run, after, by=by)
    else:
        with pytest.raises(UserError, match=part):
            turns.set_priority(run, after, by=by)
    run.refresh_from_db()
    assert run.priority == (before if part else after)


def test_a_run_that_has_ended_keeps_its_priority(admin: Any) -> None:
    run = make_run(admin, "r", Run.Kind.EVALUATION)
    with pytest.raises(UserError, match="finished already"):
        turns.set_priority(run, 3, by=admin)


@pytest.mark.parametrize("limit", [None, 0, 1, 3])
def test_a_limit_holds_from_the_next_claim_on(user: Any, admin: Any, limit: int | None) -> None:
    for _ in range(4):
        open_run(user)
    turns.set_limit(user, limit, by=admin)
    claims = [leases.claim("w") for _ in range(5)]
    assert sum(claim is not None for claim in claims) == (4 if limit is None else limit)


@pytest.mark.parametrize("limit", [-1, 10_001])
def test_a_limit_out_of_range_is_refused(user: Any, admin: Any, limit: int) -> None:
    with pytest.raises(UserError, match="limit: "):
        turns.set_limit(user, limit, by=admin)
    user.refresh_from_db()
    assert user.max_running_shards is None


def test_only_staff_set_limits(user: Any) -> None:
    with pytest.raises(UserError, match="only staff"):
        turns.set_limit(user, None, by=user)


def test_changes_are_logged_with_who_made_them(
    user: Any, admin: Any, caplog: pytest.LogCaptureFixture
) -> None:
    run = open_run(user)
    with caplog.at_level(logging.INFO, "webapp.runs.turns"):
        turns.set_priority(run, 7, by=admin)
        turns.set_limit(user, 2, by=admin)
    first, second = (vars(record) for record in caplog.records)
    assert (first["run"], first["before"], first["after"], first["by"]) == (run.pk, 0, 7, admin.pk)
    assert (second["person"], second["before"], second["after"]) == (user.pk, None, 2)


def test_a_run_is_launched_with_its_priority(user: Any, admin: Any) -> None:
    from evaluator.benchmarks import arithmetic
    from evaluator.protocol import Protocol
    from webapp.benchmarks.services import install_benchmark
    from webapp.runs import services

    benchmark = install_benchmark("arithmetic", arithmetic.generate(5, seed=1), "here")
    checkpoint = make_checkpoint(user, "tiny")
    what = {"checkpoint": checkpoint, "benchmark": benchmark, "protocol": Protocol(samples=1)}
    assert services.launch_evaluation(owner=admin, priority=4, **what).priority == 4
    assert services.launch_evaluation(owner=user, priority=-4, **what).priority == -4
    with pytest.raises(UserError, match="only staff"):
        services.launch_evaluation(owner=user, priority=1, **what)
    assert Run.objects.count() == 2

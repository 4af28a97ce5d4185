"""The claim order of claim.sql against a model of it that is written down in plain Python."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models.functions import Now
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from webapp.config.celery import QUEUES
from webapp.core.models import User
from webapp.projects.access import first_project
from webapp.runs import hosts, leases
from webapp.runs.models import Run, Shard, Stage, State, WorkerHeartbeat

SHARD_STATES = ("open", "later", "held", "ran out", "finished")


@dataclass(frozen=True)
class AShard:
    owner: int
    priority: int
    queue: str
    devices: int
    live: bool  # stage and run are queued or running
    run: int
    index: int
    state: str


@dataclass(frozen=True)
class World:
    shards: tuple[AShard, ...]
    limits: tuple[int | None, ...]
    default_limit: int
    queues: tuple[str, ...]
    max_devices: int | None
    sticky: int | None  # a run


@st.composite
def worlds(draw: st.DrawFn) -> World:
    owners = draw(st.integers(1, 3))
    shards = []
    runs = draw(st.integers(1, 5))
    for run in range(runs):
        owner = draw(st.integers(0, owners - 1))
        priority = draw(st.sampled_from((0, 0, 0, 1, -1)))
        queue = draw(st.sampled_from(("gpu", "cpu")))
        devices = draw(st.sampled_from((1, 1, 4))) if queue == "gpu" else 0
        live = draw(st.sampled_from((True, True, True, False)))
        for index in range(draw(st.integers(1, 4))):
            state = draw(st.sampled_from(SHARD_STATES))
            shards.append(AShard(owner, priority, queue, devices, live, run, index, state))
    return World(
        tuple(shards),
        tuple(draw(st.sampled_from((None, None, 1, 2))) for _ in range(owners)),
        draw(st.sampled_from((0, 0, 2))),
        draw(st.sampled_from((("gpu", "cpu"), ("cpu",), ("gpu",), ("judge",)))),
        draw(st.sampled_from((None, 0, 2, 8))),
        draw(st.one_of(st.none(), st.integers(0, runs - 1))),
    )


def model_of(world: World, taken: set[AShard]) -> AShard | None:
    """Who is next, by the rules as they are told to people."""
    active = Counter(s.owner for s in world.shards if s.state == "held" or s in taken)

    def may(shard: AShard) -> bool:
        limit = world.limits[shard.owner]
        limit = (world.default_limit or None) if limit is None else limit
        return (
            shard.live
            and shard not in taken
            and shard.state in ("open", "ran out")
            and shard.queue in world.queues
            and (world.max_devices is None or shard.devices <= world.max_devices)
            and (limit is None or active[shard.owner] < limit)
        )

    return min(
        filter(may, world.shards),
        key=lambda s: (-s.priority, s.run != world.sticky, active[s.owner], s.run, s.index),
        default=None,
    )


def build(world: World) -> tuple[dict[int, AShard], dict[int, int]]:
    """Rows for the world; returns shards by id and stage ids by run."""
    people = [
        User.objects.create(username=f"person {i}", max_running_shards=limit)
        for i, limit in enumerate(world.limits)
    ]
    stages: dict[int, Stage] = {}
    by_id = {}
    for shard in world.shards:
        if shard.run not in stages:
            state = State.QUEUED if shard.live else State.CANCELLED
            run = Run.objects.create(
                project=first_project(),
                kind="evaluation", name="r", config={}, owner=people[shard.owner],
                priority=shard.priority, state=state,
            )  # fmt: skip
            stages[shard.run] = Stage.objects.create(
                run=run, position=0, kind="evaluate", title="t", state=state,
                queue=shard.queue, devices=shard.devices,
            )  # fmt: skip
        values: dict[str, Any] = {
            "open": {"not_before": None},
            "later": {"not_before": Now() + timedelta(hours=1)},
            "held": {"state": State.RUNNING, "lease_expires_at": Now() + timedelta(hours=1)},
            "ran out": {"state": State.RUNNING, "lease_expires_at": Now() - timedelta(seconds=1)},
            "finished": {"state": State.FINISHED},
        }[shard.state]
        row = Shard.objects.create(stage=stages[shard.run], index=shard.index, **values)
        by_id[row.pk] = shard
    return by_id, {run: stage.pk for run, stage in stages.items()}


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(world=worlds())
def test_shards_are_claimed_in_the_order_that_the_model_says(
    db: None, settings: Any, world: World
) -> None:
    settings.RETORT_USER_SHARDS = world.default_limit
    settings.RETORT_LEASE_SECONDS = 3600  # whatever the machine, no claim runs out meanwhile
    with transaction.atomic():
        by_id, stages = build(world)
        taken: set[AShard] = set()
        while True:
            expected = model_of(world, taken)
            claim = leases.claim(
                "me", world.queues, max_devices=world.max_devices,
                sticky=None if world.sticky is None else stages[world.sticky],
            )  # fmt: skip
            assert (None if claim is None else by_id[claim.shard_id]) == expected
            if expected is None:
                break
            taken.add(expected)
        transaction.set_rollback(True)


@pytest.mark.parametrize("field", ["lease_expires_at", "not_before"])
def test_time_is_the_statements_however_long_its_transaction_has_lasted(
    user: Any, field: str
) -> None:
    """By the transaction's time neither has come yet: what a slow machine takes for a fault."""
    run = Run.objects.create(
        project=first_project(), kind="evaluation", name="r", config={}, owner=user
    )
    stage = Stage.objects.create(
        run=run, position=0, kind="evaluate", title="t", state=State.QUEUED, queue="gpu"
    )
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(0.05)")
        state = State.RUNNING if field == "lease_expires_at" else State.QUEUED
        past = {field: Now() - timedelta(milliseconds=10)}
        shard = Shard.objects.create(stage=stage, index=0, state=state, **past)
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {field} > transaction_timestamp() FROM runs_shard")
            assert cursor.fetchone() == (True,)
        claim = leases.claim("me")
    assert claim is not None
    assert claim.shard_id == shard.pk


def test_a_draining_worker_is_given_nothing_until_it_is_taken_back(user: Any) -> None:
    run = Run.objects.create(
        project=first_project(), kind="evaluation", name="r", config={}, owner=user
    )
    stage = Stage.objects.create(
        run=run, position=0, kind="evaluate", title="t", state=State.QUEUED, queue="gpu"
    )
    Shard.objects.create(stage=stage, index=0)
    hosts.greet("host/1", "host", QUEUES)
    worker = WorkerHeartbeat.objects.get()
    hosts.drain(worker, draining=True)
    assert leases.claim("host/1") is None
    hosts.drain(worker, draining=False)
    assert leases.claim("host/1") is not None


@pytest.mark.parametrize("limit", [1, 3])
def test_claims_that_race_never_pass_a_persons_limit(
    transactional_db: None, user: Any, settings: Any, limit: int
) -> None:
    settings.RETORT_LEASE_SECONDS = 3600
    user.max_running_shards = limit
    user.save()
    for _ in range(2):
        run = Run.objects.create(
            project=first_project(), kind="evaluation", name="r", config={}, owner=user
        )
        stage = Stage.objects.create(
            run=run, position=0, kind="evaluate", title="t", state=State.QUEUED, queue="gpu"
        )
        Shard.objects.bulk_create(Shard(stage=stage, index=i) for i in range(8))
    barrier = threading.Barrier(6)

    def race(_: int) -> list[leases.Claim | None]:
        try:
            barrier.wait()
            return [leases.claim("me") for _ in range(3)]
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as threads:  # what fails in a thread fails the test
        claims = [claim for found in threads.map(race, range(6)) for claim in found if claim]
    assert len(claims) == limit
    leases.release_shard(claims[0])
    assert leases.claim("me") is not None
    assert leases.claim("me") is None

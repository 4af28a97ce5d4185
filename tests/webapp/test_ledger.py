"""The cost ledger: one entry per lease whatever happens, and sums that agree."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.webapp import samples
from webapp.core.models import User
from webapp.endpoints.models import Endpoint
from webapp.projects.access import first_project
from webapp.runs import leases, ledger, services, stages
from webapp.runs.leases import Claim
from webapp.runs.ledger import Cost, Usage
from webapp.runs.models import LedgerEntry, Run, Segment, Shard, Stage, State


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "ring", lambda stage, times: None)
    monkeypatch.setattr(stages, "is_full", lambda queue: False)


def launch(owner: Any, shards: int = 3, stage_count: int = 2, **config: Any) -> Run:
    """A run of bare stages, the first of which can be claimed."""
    run = Run.objects.create(
        project=first_project(), kind="distillation", name="tiny", config={}, owner=owner
    )
    for position in range(stage_count):
        stage = Stage.objects.create(
            run=run, position=position, kind="generate", title="Generate", config=config,
            state=State.WAITING if position else State.QUEUED, queue="gpu",
        )  # fmt: skip
        Shard.objects.bulk_create(Shard(stage=stage, index=i, total=1) for i in range(shards))
    return run


def expire(claim: Claim, ago: float = 1.0) -> None:
    """Let the lease have run out so many seconds ago."""
    Shard.objects.filter(pk=claim.shard_id).update(lease_expires_at=Now() - timedelta(seconds=ago))


def began(claim: Claim, ago: float) -> None:
    """Let the lease have begun so many seconds ago."""
    Shard.objects.filter(pk=claim.shard_id).update(leased_at=Now() - timedelta(seconds=ago))


def only_entry() -> LedgerEntry:
    return LedgerEntry.objects.get()


def claim_one(run: Run) -> Claim:
    claim = leases.claim("me/1")
    assert claim is not None
    assert claim.run_id == run.pk
    return claim


def test_an_entry_says_what_the_lease_took(user: Any) -> None:
    run = launch(user)
    claim = claim_one(run)
    began(claim, 100)
    leases.record_usage(
        claim, Usage(devices=2, cpu_seconds=50.5, prompt_tokens=7, completion_tokens=11)
    )
    leases.finish_shard(claim, {})
    entry = only_entry()
    assert (entry.lease_token, entry.user, entry.run) == (claim.token, user, run)
    assert (entry.stage_id, entry.shard_id) == (claim.stage_id, claim.shard_id)
    assert (entry.kind, entry.worker, entry.ended, entry.cause) == (
        "generate", "me/1", "finished", "",
    )  # fmt: skip
    assert entry.wall_seconds == pytest.approx(100, abs=5)
    assert entry.device_seconds == pytest.approx(2 * entry.wall_seconds)
    assert (entry.cpu_seconds, entry.prompt_tokens, entry.completion_tokens) == (50.5, 7, 11)
    assert (entry.asks_endpoint, entry.endpoint_money, entry.lost_share) == (False, None, 0)


@pytest.mark.parametrize(
    ("end", "ended", "cause"),
    [
        (lambda c: leases.fail_shard(c, "it broke", transient=True), "retried", "transient"),
        (lambda c: leases.fail_shard(c, "it broke", transient=False), "failed", "permanent"),
        (leases.release_shard, "released", ""),
        (lambda c: services.cancel_run(Run.objects.get()), "cancelled", ""),
        (lambda c: (expire(c), leases.claim("other/2")), "lost", "lost_lease"),
        (lambda c: (expire(c), services.cancel_run(Run.objects.get())), "lost", "lost_lease"),
    ],
)
def test_every_end_is_named(
    user: Any, end: Callable[[Claim], object], ended: str, cause: str
) -> None:
    claim = claim_one(launch(user))
    began(claim, 60)
    leases.record_usage(claim, Usage(cpu_seconds=3))
    end(claim)
    entry = only_entry()
    assert (entry.ended, entry.cause, entry.lost_share) == (ended, cause, 1)
    assert entry.cpu_seconds == 3


@pytest.mark.parametrize("tokens", [2**63, 10**30])
def test_no_count_keeps_a_lease_from_ending(user: Any, tokens: int) -> None:
    """Else nobody could claim anything any more: the shard's next lease is always tried first."""
    run = launch(user, shards=1)
    claim = claim_one(run)
    leases.record_usage(claim, Usage(prompt_tokens=tokens, completion_tokens=tokens, uncounted=1))
    expire(claim)
    assert leases.claim("other/2") is not None
    entry = only_entry()
    assert entry.prompt_tokens == entry.completion_tokens == 2**63 - 1
    services.cancel_run(run)


def test_a_shard_that_kills_its_workers_is_the_last_of_them_lost(user: Any) -> None:
    claim = claim_one(launch(user, shards=1))
    Shard.objects.filter(pk=claim.shard_id).update(attempts=leases.MAX_LOST)
    expire(claim)
    leases.reap()
    assert (only_entry().ended, Run.objects.get().state) == ("lost", State.FAILED)


def test_a_named_cause_stands_in_the_ledger(user: Any) -> None:
    claim = claim_one(launch(user))
    leases.record_usage(claim, Usage(cause="out_of_memory"))
    leases.fail_shard(claim, "no memory", transient=True)
    assert only_entry().cause == "out_of_memory"


def test_time_after_the_lease_ran_out_is_not_ours(user: Any) -> None:
    claim = claim_one(launch(user))
    began(claim, 100)
    expire(claim, ago=70)
    leases.record_usage(claim, Usage(devices=1))
    assert leases.claim("other/2") is not None
    assert only_entry().device_seconds == pytest.approx(30, abs=5)


def test_what_was_accepted_before_the_end_is_not_lost(user: Any) -> None:
    claim = claim_one(launch(user))
    began(claim, 100)
    segment = Segment.objects.create(
        shard_id=claim.shard_id, name="s", lease_token=claim.token, sha256="", row_count=1,
        size_bytes=1,
    )  # fmt: skip
    Segment.objects.filter(pk=segment.pk).update(accepted_at=Now() - timedelta(seconds=25))
    leases.fail_shard(claim, "it broke", transient=True)
    assert only_entry().lost_share == pytest.approx(0.25, abs=0.02)


def test_what_one_lease_said_is_not_the_next_ones(user: Any, settings: Any) -> None:
    settings.RETORT_RETRY_SECONDS = 0.0
    run = launch(user, shards=1)
    first = claim_one(run)
    leases.record_usage(first, Usage(devices=2, cpu_seconds=9, cause="limits"))
    leases.fail_shard(first, "it broke", transient=True)
    second = claim_one(run)
    leases.fail_shard(second, "it broke", transient=True)
    entry = LedgerEntry.objects.get(lease_token=second.token)
    assert (entry.cpu_seconds, entry.device_seconds, entry.cause) == (0, 0, "transient")


def test_what_a_revived_worker_says_counts_nowhere(user: Any) -> None:
    first = claim_one(launch(user, shards=1))
    expire(first)
    second = leases.claim("other/2")
    assert second is not None
    leases.record_usage(first, Usage(devices=8, cpu_seconds=1e9))
    leases.finish_shard(second, {})
    leases.record_usage(first, Usage(devices=8, cpu_seconds=1e9))
    found = LedgerEntry.objects.order_by("pk").values_list("lease_token", "ended", "cpu_seconds")
    assert list(found) == [(first.token, "lost", 0), (second.token, "finished", 0)]


def test_a_lease_given_back_before_anything_was_started_took_nothing(user: Any) -> None:
    leases.release_shard(claim_one(launch(user)))
    assert not LedgerEntry.objects.exists()


@pytest.mark.parametrize(
    ("prices", "uncounted", "money"),
    [((2.0, 8.0), 0, (3 * 2.0 + 5 * 8.0)), ((2.0, None), 0, None), ((2.0, 8.0), 1, None)],
)
def test_an_endpoints_money_is_by_its_prices_or_blank(
    user: Any, prices: tuple[float, float | None], uncounted: int, money: float | None
) -> None:
    endpoint = Endpoint.objects.create(
        checkpoint=samples.make_checkpoint(user, "far"), base_url="https://far.example",
        model="far", owner=user, input_price=prices[0], output_price=prices[1],
    )  # fmt: skip
    claim = claim_one(launch(user, endpoint=endpoint.pk))
    leases.record_usage(
        claim,
        Usage(prompt_tokens=3_000_000, completion_tokens=5_000_000, uncounted=uncounted),
    )
    leases.finish_shard(claim, {})
    entry = only_entry()
    assert (entry.asks_endpoint, entry.endpoint_money) == (True, money)
    cost = ledger.of_stages(Run.objects.get())[claim.stage_id]
    assert (cost.spent.money, cost.is_at_least) == (money, money is None)


def test_the_ledger_only_grows(user: Any) -> None:
    claim = claim_one(launch(user))
    leases.record_usage(claim, Usage(cpu_seconds=3))
    leases.release_shard(claim)
    for change in (
        lambda: LedgerEntry.objects.update(cpu_seconds=0),
        lambda: LedgerEntry.objects.all().delete(),
    ):
        with pytest.raises(DatabaseError, match="never changed"), transaction.atomic():
            change()
    Run.objects.all().delete()
    entry = only_entry()
    assert (entry.cpu_seconds, entry.run, entry.stage, entry.user) == (3, None, None, user)


# --- properties

OPERATIONS = ("finish", "retry", "release", "expire", "stale", "cancel", "resume", "usage")


@hypothesis_settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32), steps=st.lists(st.sampled_from(OPERATIONS), max_size=30))
def test_every_lease_is_in_the_ledger_once_and_sums_agree(
    user: Any, settings: Any, seed: int, steps: list[str]
) -> None:
    """Random lives of two people's runs, against a model of what their leases took."""
    settings.RETORT_MAX_FAILURES = 100
    settings.RETORT_RETRY_SECONDS = 0.0
    with transaction.atomic():
        _live(random.Random(seed), steps, user)
        transaction.set_rollback(True)


def _live(rng: random.Random, steps: list[str], user: Any) -> None:
    people = [user, User.objects.create_user("grace")]
    runs = [launch(owner) for owner in people for _ in range(2)]
    held: list[Claim] = []
    said: Counter[Any] = Counter()  # CPU seconds by lease
    stale: list[Claim] = []
    for step in steps:
        while len(held) < 3 and (claim := leases.claim(f"host/{len(said)}")) is not None:
            held = [each for each in held if each.shard_id != claim.shard_id]
            held.append(claim)
            said[claim.token] = 0
        if step == "stale" and stale:
            # What a revived worker writes counts nowhere.
            leases.record_usage(rng.choice(stale), Usage(cpu_seconds=1e9))
            continue
        if step == "cancel":
            run = rng.choice(runs)
            run.refresh_from_db()
            if run.state not in (State.FINISHED, State.FAILED, State.CANCELLED):
                services.cancel_run(run)
            held = [each for each in held if leases.is_held(each)]
            continue
        if step == "resume":
            for run in Run.objects.filter(state=State.CANCELLED):
                services.retry_run(run)
            continue
        if not held:
            continue
        claim = held.pop(rng.randrange(len(held)))
        seconds = rng.randint(1, 50)
        leases.record_usage(claim, Usage(devices=rng.randint(0, 2), cpu_seconds=seconds))
        said[claim.token] = seconds
        if step == "finish":
            leases.finish_shard(claim, {})
        elif step == "retry":
            leases.fail_shard(claim, "it broke", transient=True)
        elif step == "release":
            leases.release_shard(claim)
        elif step == "usage":
            held.append(claim)
            continue
        else:
            expire(claim)
        stale.append(claim)
    _check(people, runs, said)


def _check(people: list[Any], runs: list[Run], said: Counter[Any]) -> None:
    open_leases = set(Shard.objects.exclude(lease_token=None).values_list("lease_token", flat=True))
    entries = {entry.lease_token: entry for entry in LedgerEntry.objects.all()}
    assert len(entries) == LedgerEntry.objects.count()
    assert entries.keys().isdisjoint(open_leases)
    ended = {token for token in said if token not in open_leases}
    # A lease of which nothing was said may have been given back unused; all others are there.
    assert ended - entries.keys() <= {token for token, seconds in said.items() if not seconds}
    assert {token: entry.cpu_seconds for token, entry in entries.items()} == {
        token: said[token] for token in entries
    }
    by_user = ledger.grouped(LedgerEntry.objects.all(), "user_id")
    by_run = ledger.grouped(LedgerEntry.objects.all(), "run_id")
    for run in runs:
        of_stages = ledger.total(ledger.of_stages(run).values())
        assert close(of_stages, by_run.get(run.pk, Cost()))
    for person in people:
        own = [by_run.get(run.pk, Cost()) for run in runs if run.owner_id == person.pk]
        assert close(ledger.total(own), by_user.get(person.pk, Cost()))
    for cost in by_user.values():
        assert 0 <= cost.lost.wall_seconds <= cost.spent.wall_seconds + 1e-9
        assert cost.spent.cpu_seconds == int(cost.spent.cpu_seconds)


def close(one: Cost, other: Cost) -> bool:
    counts = (one.leases, one.unfinished, one.unpriced) == (
        other.leases, other.unfinished, other.unpriced,
    )  # fmt: skip
    return counts and all(
        (a is None) == (b is None) and (a is None or a == pytest.approx(b))
        for left, right in ((one.spent, other.spent), (one.lost, other.lost))
        for a, b in (
            (getattr(left, name), getattr(right, name)) for name in ledger.Amounts.__slots__
        )
    )


# --- students


def spend(run: Run, kind: str, seconds: float, evaluation: Any = None) -> None:
    """A finished stage of one shard that took so much device time on one device."""
    stage = Stage.objects.create(
        run=run, position=run.stages.count(), kind=kind, title=kind, state=State.QUEUED,
        evaluation=evaluation,
    )  # fmt: skip
    Shard.objects.create(stage=stage, index=0)
    Run.objects.filter(pk=run.pk).update(state=State.QUEUED)
    claim = leases.claim_shard(stage.pk, "me/1")
    assert claim is not None
    began(claim, seconds)
    leases.record_usage(claim, Usage(devices=1, cpu_seconds=1))
    Shard.objects.filter(pk=claim.shard_id).update(state=State.FINISHED, lease_token=None)
    Stage.objects.filter(pk=stage.pk).update(state=State.FINISHED)


@pytest.fixture
def student(user: Any) -> Any:
    """A base and its student, measured on one benchmark, with what each step took."""
    problems = samples.arithmetic(10)
    benchmark = samples.make_benchmark(problems)
    run = samples.make_run(user, "distil", Run.Kind.DISTILLATION)
    base = samples.make_checkpoint(user, "base")
    student = samples.make_checkpoint(user, "student", parent=base, produced_by=run)
    of_base, of_student = (
        samples.make_evaluation(
            user, checkpoint, benchmark, problems, run=run, draw=samples.plain_draw(ability)
        )
        for checkpoint, ability in ((base, 0.0), (student, 1.0))
    )
    other = samples.make_evaluation(user, student, benchmark, problems)
    for kind, seconds, evaluation in (
        ("generate", 3600, None), ("filter", 360, None), ("train", 7200, None),
        ("evaluate", 720, of_base), ("evaluate", 180, of_student),
    ):  # fmt: skip
        spend(run, kind, seconds, evaluation)
    spend(other.run, "evaluate", 90, other)
    return of_student, of_base


def test_a_student_took_its_traces_its_training_and_its_evaluations(
    student: Any, user: Any
) -> None:
    with CaptureQueriesContext(
        connection,
    ) as queries:
        cost = ledger.cost_of(student[0].checkpoint, user)
    assert len(queries) == 2
    for part, seconds in (
        (cost.traces, 3960), (cost.training, 7200), (cost.evaluation, 270), (cost.making, 11160),
        (cost.total, 11430),
    ):  # fmt: skip
        assert part.spent.device_seconds == pytest.approx(seconds, abs=30)
    base = ledger.cost_of(student[1].checkpoint, user)
    assert (base.making, base.evaluation.leases) == (Cost(), 1)


def test_a_point_costs_what_making_the_student_took(student: Any, user: Any, settings: Any) -> None:
    per_point = ledger.CostPerPoint(100, ledger.cost_of(student[0].checkpoint, user).making)
    assert per_point.money is None
    assert per_point.device_hours == pytest.approx(3.1 / 100, rel=0.01)
    settings.RETORT_DEVICE_HOUR_PRICE = 2.5
    assert per_point.money == pytest.approx(3.1 / 100 * 2.5, rel=0.01)

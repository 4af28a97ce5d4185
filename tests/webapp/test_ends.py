"""The last shards of a stage: however their ends coincide, the run goes on exactly once."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.db import connection, transaction

from tests.webapp.samples import make_run
from webapp.runs import leases, settling, stages
from webapp.runs.models import Run, Shard, Stage, State


@pytest.fixture
def run(transactional_db: None, user: Any, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Two stages, of two shards and of one."""
    monkeypatch.setattr(stages, "ring", lambda stage, times: None)
    made = make_run(user, "r", Run.Kind.DISTILLATION, State.QUEUED)
    for position, count in enumerate((2, 1)):
        stage = Stage.objects.create(
            run=made, position=position, kind="generate", title="t", queue="cpu",
            state=State.WAITING if position else State.QUEUED,
        )  # fmt: skip
        Shard.objects.bulk_create(Shard(stage=stage, index=index) for index in range(count))
    return made


def claims() -> list[leases.Claim]:
    found = [leases.claim("a"), leases.claim("b")]
    return [claim for claim in found if claim is not None]


def states(run: Run) -> tuple[list[str], str]:
    run.refresh_from_db()
    return list(run.stages.order_by("position").values_list("state", flat=True)), run.state


def test_two_last_shards_that_cannot_see_each_other_end(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    both_updated = threading.Barrier(2)
    finish, advance = leases._finish, leases.advance
    advanced = []

    def together(held: Any, outcome: Any) -> bool:
        # Neither end is there for the other one to see before both are written.
        with transaction.atomic():
            done = finish(held, outcome)
            both_updated.wait(timeout=30)
        return done

    def counted(run: Run, stage: Stage) -> None:
        advanced.append(stage.pk)
        advance(run, stage)

    monkeypatch.setattr(leases, "_finish", together)
    monkeypatch.setattr(leases, "advance", counted)
    errors: list[BaseException] = []

    def end(claim: leases.Claim) -> None:
        try:
            leases.finish_shard(claim, {})
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=end, args=(claim,)) for claim in claims()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(advanced) == 1
    assert states(run) == ([State.FINISHED, State.QUEUED], State.RUNNING)


def test_a_worker_that_dies_after_the_last_end_leaves_it_to_the_upkeep(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = claims()
    leases.finish_shard(first, {})
    with monkeypatch.context() as dying:
        # As if another shard had been open: this one's end is not followed up.
        dying.setattr(leases, "go_on", lambda stage_id: False)
        Shard.objects.filter(pk=first.shard_id).update(state=State.RUNNING)
        assert leases._finish_among_others(second, {})
        Shard.objects.filter(pk=first.shard_id).update(state=State.FINISHED)
    assert states(run) == ([State.RUNNING, State.WAITING], State.RUNNING)
    assert settling.settle() == [second.stage_id]
    assert states(run) == ([State.FINISHED, State.QUEUED], State.RUNNING)
    assert settling.settle() == []


def test_nothing_goes_on_in_a_run_that_was_cancelled(run: Run) -> None:
    from webapp.runs.services import cancel_run

    first, second = claims()
    leases.finish_shard(first, {})
    cancel_run(run)
    with pytest.raises(leases.LeaseLostError):
        leases.finish_shard(second, {})
    assert not leases.go_on(second.stage_id)
    assert states(run) == ([State.CANCELLED, State.CANCELLED], State.CANCELLED)


def test_a_stage_that_cannot_end_fails_its_run_in_a_sentence(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from webapp.core.errors import UserError

    def refuse(run: Run, stage: Stage) -> None:
        raise UserError("student: the name is taken; choose another one.")

    first, second = claims()
    leases.finish_shard(first, {})
    Shard.objects.filter(pk=second.shard_id).update(state=State.FINISHED, lease_token=None)
    monkeypatch.setattr(leases, "advance", refuse)
    assert leases.go_on(second.stage_id)
    run.refresh_from_db()
    assert (run.state, run.error) == (
        State.FAILED, "student: the name is taken; choose another one.",
    )  # fmt: skip

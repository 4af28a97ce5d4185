"""Ends that are not the work's own: limits, memory, silence, a database that is away."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError

from webapp.runs import leases
from webapp.runs.models import Run, Stage, State
from workers import endings
from workers.children import Child, child_command, child_environment
from workers.tasks.stages import do_work

Behave = Callable[[str], None]

DEVICE_TEXTS = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total",
    "RuntimeError: CUDA error: out of memory",
    "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`",
)
HOST_TEXTS = (
    "RuntimeError: [enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't "
    "allocate memory: you tried to allocate 8 bytes. Error code 12 (Cannot allocate memory)",
    "RuntimeError: [enforce fail at alloc_cpu.cpp] . DefaultCPUAllocator: not enough memory: you "
    "tried to allocate 68719476736 bytes.",
    "terminate called after throwing an instance of 'std::bad_alloc'",
    "Traceback (most recent call last):\nMemoryError",
    "OSError: [Errno 12] Cannot allocate memory",
)


@pytest.mark.parametrize("kind", ["train", "evaluate", "grade", "another"])
def test_memory_that_ran_out_is_named_with_a_remedy(kind: str) -> None:
    for texts, transient in ((DEVICE_TEXTS, False), (HOST_TEXTS, True)):
        for text in texts:
            end = endings.out_of_something(kind, text)
            assert end is not None
            assert "out of memory" in end.sentence
            assert "; " in end.sentence or ": " in end.sentence
            assert end.transient == transient
            assert endings.of_exit(kind, 1, text, oom_killed=False) == end


def test_a_full_disk_is_named_and_tried_again() -> None:
    end = endings.out_of_something("grade", "[Errno 28] No space left on device: '/x/y.part'")
    assert end is not None
    assert end.sentence.startswith("The disk of the runs' files is full")
    assert end.transient


@pytest.mark.parametrize(
    "text", ["ValueError: memory of the past", "the corpus is out of order", "", "MemoryErrors: 0"]
)
def test_other_failures_are_not_called_memory(text: str) -> None:
    assert endings.out_of_something("train", text) is None


def test_a_kill_is_called_memory_only_on_the_kernels_word() -> None:
    killed = endings.of_exit("train", -signal.SIGKILL, "", oom_killed=True)
    assert "out of memory" in killed.sentence
    assert "lower the recipe's batch" in killed.sentence
    by_somebody = endings.of_exit("train", -signal.SIGKILL, "", oom_killed=False)
    assert "SIGKILL (by somebody" in by_somebody.sentence
    assert killed.transient
    assert by_somebody.transient


def test_the_kernels_counter_counts_from_the_childs_start(monkeypatch: pytest.MonkeyPatch) -> None:
    counters = {"vmstat": 3}
    monkeypatch.setattr(endings, "oom_kills", lambda: dict(counters))
    child = Child(["sleep", "600"], child_environment(()))
    try:
        assert not child.oom_killed
        counters["memory.events"] = 9  # a counter that was not there before says nothing
        assert not child.oom_killed
        counters["vmstat"] = 4
        assert child.oom_killed
    finally:
        child.kill()


@pytest.mark.parametrize(
    ("how", "sentence", "state"),
    [("hoard", "The device's memory", State.FAILED), ("memory", "The host's memory", State.QUEUED)],
)
def test_a_child_out_of_memory_says_what_to_do(
    run: Run, evaluate: Stage, child: Behave, settings: Any, how: str, sentence: str, state: str
) -> None:
    settings.RETORT_RETRY_SECONDS = 3600.0
    child(how)
    do_work("me", ["gpu"])
    shard = evaluate.shards.get(index=0)
    assert shard.error.startswith(sentence)
    assert "gpu_memory_share" in shard.error
    assert shard.state == state


@pytest.mark.parametrize(
    ("limit", "state"),
    [("RETORT_IDLE_SECONDS", State.QUEUED), ("RETORT_WALL_SECONDS", State.FAILED)],
)
def test_a_shard_that_takes_too_long_is_ended(
    run: Run, evaluate: Stage, child: Behave, settings: Any, limit: str, state: str,
    group_members: Callable[[int], list[int]],
) -> None:  # fmt: skip
    setattr(settings, limit, 0.5)
    settings.RETORT_RETRY_SECONDS = 3600.0
    child("silent")
    asked = time.monotonic()
    # One shard at a time: the others would be tried too, each for the same time.
    evaluate.shards.exclude(index=0).update(state=State.FINISHED)
    do_work("me", ["gpu"])
    assert time.monotonic() - asked < 15
    shard = evaluate.shards.get(index=0)
    assert shard.state == state
    assert limit in shard.error


def test_a_child_whose_worker_is_silent_ends_its_whole_group(
    run: Run, evaluate: Stage, child: Behave, wait_until: Callable[..., Any],
    group_members: Callable[[int], list[int]],
) -> None:  # fmt: skip
    from webapp.runs import files, stages
    from workers import supervisor

    child("stubborn")  # has a child of its own, and ignores SIGTERM
    claim = leases.claim_shard(evaluate.pk, "me")
    assert claim is not None
    spec = stages.write_spec(evaluate, "cpu")
    process = Child(supervisor.child_command(evaluate, spec), child_environment(()))
    assert child_command is not supervisor.child_command
    try:
        process.send({"shard": claim.shard_id, "lease": claim.token.hex, "work": dict(claim.work)})
        note = files.segments_folder(evaluate) / "group"
        wait_until(lambda: note.exists() and note.read_text())
        assert len(group_members(process.pid)) == 2
        process.send({"beat": 60.0})
        process.send({"beat": 0.5})
        wait_until(lambda: not group_members(process.pid), seconds=10)
    finally:
        assert process.kill() == -signal.SIGKILL


def test_a_database_that_is_away_for_a_moment_costs_nothing(
    run: Run, evaluate: Stage, child: Behave, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = {"progress": 2, "segment": 1, "finish": 1}

    def flaky(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if away[name] > 0:
                away[name] -= 1
                raise OperationalError("the connection is closed")
            return real(*args, **kwargs)

        return call

    monkeypatch.setattr(leases, "record_progress", flaky("progress", leases.record_progress))
    monkeypatch.setattr(leases, "accept_segment", flaky("segment", leases.accept_segment))
    monkeypatch.setattr(leases, "finish_shard", flaky("finish", leases.finish_shard))
    child("well")
    do_work("me", ["gpu"])
    evaluate.refresh_from_db()
    assert evaluate.state == State.FINISHED
    assert set(evaluate.shards.values_list("attempts", "failures")) == {(1, 0)}
    assert set(away.values()) == {0}

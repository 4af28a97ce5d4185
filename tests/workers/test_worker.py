"""Real Celery workers on a real broker: killed, doubled, told to stop."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evaluator.records import completion_seed
from evaluator.store import read_segment
from webapp.config import celery
from webapp.runs import files, plans, services
from webapp.runs.models import Completion, Run, Segment, Shard, Stage, State, WorkerHeartbeat

Start = Callable[..., Any]
Wait = Callable[..., Any]


def ring(stage: Stage, times: int = 1) -> None:
    """Ring for real (the fixture ``run`` keeps the services from it)."""
    for _ in range(times):
        celery.ring(stage.pk, stage.queue)


def final(run: Run) -> bool:
    run.refresh_from_db()
    return run.state in (State.FINISHED, State.FAILED, State.CANCELLED)


def assert_whole(run: Run) -> None:
    """Every key once, in the rows and in the accepted files, each with its own seed."""
    evaluation = run.evaluations.get()
    problems = list(evaluation.benchmark.problems.values_list("problem_id", flat=True))
    wanted = {(problem, sample) for problem in problems for sample in range(2)}
    keys = list(evaluation.completions.values_list("problem__problem_id", "sample"))
    assert len(keys) == len(wanted)
    assert set(keys) == wanted
    stage = run.stages.get(kind="evaluate")
    seen = [row for path in files.accepted_segments(stage) for _, row in read_segment(path)]
    assert {(row["problem_id"], row["sample"]) for row in seen} == wanted
    assert len(seen) == len(wanted)
    for row in seen:
        assert row["seed"] == completion_seed(0, row["problem_id"], row["sample"])


def test_a_killed_worker_costs_no_key_and_doubles_none(
    run: Run, evaluate: Stage, start_worker: Start, wait_until: Wait,
    group_members: Callable[[int], list[int]],
) -> None:  # fmt: skip
    ring(evaluate)
    first = start_worker(child="slow")
    wait_until(lambda: Segment.objects.count() >= 3)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert not final(run)
    before = set(Segment.objects.values_list("pk", flat=True))
    assert 3 <= len(before) < 120
    start_worker(child="slow")
    wait_until(lambda: final(run))
    assert run.state == State.FINISHED, run.error
    assert_whole(run)
    assert before <= set(Segment.objects.values_list("pk", flat=True))
    assert Shard.objects.filter(stage=evaluate, attempts=2).count() == 1
    metrics = run.evaluations.get().metrics
    assert sum(metrics["outcomes"].values()) == metrics["samples"] * metrics["problems"] == 240


def test_lost_and_doubled_messages_change_nothing(
    run: Run, evaluate: Stage, start_worker: Start, wait_until: Wait
) -> None:
    # No message at all for the first stage (lost): the reaper has to find it. Then far too many.
    for _ in range(2):
        start_worker(child="well")
    wait_until(Segment.objects.exists)
    ring(evaluate, times=20)
    ring(run.stages.get(kind="grade"), times=20)
    wait_until(lambda: final(run))
    assert run.state == State.FINISHED, run.error
    assert_whole(run)
    assert set(evaluate.shards.values_list("attempts", flat=True)) == {1}


def test_a_worker_told_to_stop_stops_soon_and_is_forgotten(
    run: Run, evaluate: Stage, start_worker: Start, wait_until: Wait
) -> None:
    worker = start_worker(child="stubborn")
    note = files.segments_folder(evaluate) / "group"
    wait_until(lambda: note.exists() and note.read_text())
    wait_until(lambda: WorkerHeartbeat.objects.exclude(doing="").exists())
    worker.terminate()
    worker.wait(timeout=20)
    shard = evaluate.shards.get(index=0)
    assert (shard.state, shard.attempts) == (State.QUEUED, 0)
    assert not WorkerHeartbeat.objects.exists()


def test_completions_made_elsewhere_are_imported_and_graded(
    benchmark: Any, user: Any, tmp_path: Path, start_worker: Start, wait_until: Wait
) -> None:
    rows = [
        {
            "problem_id": problem.problem_id, "sample": sample,
            "completion": rf"<think>hm</think>\boxed{{{int(problem.answer) + sample}}}",
        }
        for problem in benchmark.problems.all()
        for sample in range(2)
    ]  # fmt: skip
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    start_worker()
    run = services.import_completions(
        owner=user, checkpoint_name="elsewhere/model", benchmark=benchmark, path=path
    )
    wait_until(lambda: final(run))
    assert run.state == State.FINISHED, run.error
    evaluation = run.evaluations.get()
    assert evaluation.pass_at_1 == 0.5
    assert evaluation.metrics["outcomes"]["correct"] == len(rows) / 2
    assert not evaluation.checkpoint.has_files
    assert evaluation.protocol["thinking"]["kind"] == "tags"
    assert set(Completion.objects.values_list("outcome", flat=True)) == {"correct", "wrong"}


@pytest.mark.parametrize("how", ["broken", "well"])
def test_a_run_ends_in_a_sentence_or_in_figures(
    run: Run, evaluate: Stage, start_worker: Start, wait_until: Wait, how: str
) -> None:
    start_worker(child=how, RETORT_RETRY_SECONDS="0.1")
    wait_until(lambda: final(run))
    assert run.state == (State.FAILED if how == "broken" else State.FINISHED)
    assert bool(run.error) == (how == "broken")


def test_one_worker_and_four_on_two_hosts_give_the_same(
    benchmark: Any, user: Any, tmp_path: Path, start_worker: Start, wait_until: Wait,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(plans, "GRADE_SHARD", 24)  # ten shards, and the one that merges them
    path = tmp_path / "rows.jsonl"
    with path.open("w") as file:
        for number, problem in enumerate(benchmark.problems.all()):
            for sample in range(2):
                answer = int(problem.answer) + (number * 7 + sample) % 3
                text = "hm" if number % 11 == 0 else rf"<think>hm</think>\boxed{{{answer}}}"
                row = {"problem_id": problem.problem_id, "sample": sample, "completion": text}
                file.write(json.dumps(row) + "\n")

    def measure(name: str) -> tuple[Any, set[str]]:
        run = services.import_completions(
            owner=user, checkpoint_name=name, benchmark=benchmark, path=path
        )
        wait_until(lambda: final(run))
        assert run.state == State.FINISHED, run.error
        evaluation = run.evaluations.get()
        grade = run.stages.get(kind="grade")
        assert grade.shards.count() == 11
        rows = list(
            evaluation.completions.order_by("problem__problem_id", "sample").values_list(
                "problem__problem_id", "sample", "outcome", "answer", "reason"
            )
        )
        return (evaluation.metrics, rows), set(grade.shards.values_list("worker", flat=True))

    start_worker(RETORT_HOST="alpha")
    alone, by_one = measure("one")
    for host in ("alpha", "beta", "beta"):
        start_worker(RETORT_HOST=host)
    wait_until(lambda: WorkerHeartbeat.objects.count() == 4)
    together, by_many = measure("many")
    assert together == alone
    assert len(by_one) == 1
    assert len(by_many) > 1
    assert {name.partition("/")[0] for name in by_many} == {"alpha", "beta"}


def test_keys_and_seeds_are_the_same_whoever_draws(
    run: Run, evaluate: Stage, start_worker: Start, wait_until: Wait
) -> None:
    for host in ("alpha", "alpha", "beta", "beta"):
        start_worker(child="slow", RETORT_HOST=host)
    wait_until(lambda: WorkerHeartbeat.objects.count() == 4)
    ring(evaluate, times=4)
    wait_until(lambda: final(run))
    assert run.state == State.FINISHED, run.error
    assert_whole(run)
    assert len(set(evaluate.shards.values_list("worker", flat=True))) == 3


def test_a_stage_shows_its_log_while_it_works(
    run: Run, evaluate: Stage, start_worker: Start, wait_until: Wait
) -> None:
    ring(evaluate)
    start_worker(child="storm")
    wait_until(lambda: Stage.objects.filter(pk=evaluate.pk, log_tail__contains="environment:"))
    assert not final(run)

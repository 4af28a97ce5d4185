"""What a lease took, as the worker measures it and the ledger keeps it."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from django.db import connection

from webapp.config import celery
from webapp.runs import leases
from webapp.runs.management.commands.judge_role import make_role
from webapp.runs.models import LedgerEntry, Run, Shard, Stage, State
from workers import processor_time, supervisor
from workers.gpus import Grant
from workers.supervisor import Post
from workers.tasks.stages import do_work

Behave = Callable[[str], None]

BURN = """
import subprocess, sys, time
def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
reaped = [sys.executable, "-c", "sum(i * i for i in range(3_000_000))"]
subprocess.run(reaped, check=True)
living = subprocess.Popen([sys.executable, "-c", "sum(i * i for i in range(3_000_000)); input()"],
                          stdin=subprocess.PIPE, start_new_session=True)
burn(0.2)
time.sleep(1.0)
print("burnt", flush=True)
sys.stdin.read()
living.stdin.close()
living.wait()
"""


def children_seconds() -> float:
    """CPU time of all children that this process has reaped, with those that they have reaped."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_cpu_time_is_that_of_the_whole_tree() -> None:
    before = children_seconds()
    with subprocess.Popen(
        [sys.executable, "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"burnt\n"
        read = processor_time.of(process.pid)
        process.communicate()
    told = children_seconds() - before
    assert read == pytest.approx(told, rel=0.2, abs=0.1)
    assert processor_time.of(process.pid) == 0.0


def test_what_ended_but_was_not_reaped_still_tells() -> None:
    process = subprocess.Popen([sys.executable, "-c", "sum(i * i for i in range(3_000_000))"])
    before = children_seconds()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    read = processor_time.of(process.pid)
    process.wait()
    assert read == pytest.approx(children_seconds() - before, abs=0.05)


def test_every_shard_of_a_child_is_in_the_ledger_with_its_own_share(
    run: Run, evaluate: Stage, child: Behave
) -> None:
    child("well")
    before = children_seconds()
    do_work("me", ["gpu"])
    told = children_seconds() - before
    entries = list(LedgerEntry.objects.filter(stage=evaluate).order_by("shard__index"))
    assert [entry.ended for entry in entries] == ["finished"] * 3
    assert [entry.completion_tokens for entry in entries] == [300, 300, 120]
    assert [entry.prompt_tokens for entry in entries] == [200, 200, 80]
    taken = sum(entry.cpu_seconds for entry in entries)
    assert 0.5 * told < taken <= told + 0.05
    assert entries[0].cpu_seconds > entries[2].cpu_seconds  # the first one loads the model


@pytest.mark.parametrize(
    ("how", "ended", "cause"),
    [("killed", "retried", "transient"), ("memory", "retried", "out_of_memory"),
     ("hoard", "failed", "out_of_memory"), ("broken", "failed", "permanent"),
     ("silent", "retried", "limits")],
)  # fmt: skip
def test_a_failure_is_counted_with_its_cause(
    run: Run, evaluate: Stage, child: Behave, settings: Any, how: str, ended: str, cause: str
) -> None:
    settings.RETORT_RETRY_SECONDS = 3600.0
    settings.RETORT_IDLE_SECONDS = 0.5 if how == "silent" else 0.0
    evaluate.shards.exclude(index=0).update(state=State.FINISHED)
    child(how)
    before = children_seconds()
    do_work("me", ["gpu"])
    entry = LedgerEntry.objects.get()
    assert (entry.ended, entry.cause, entry.lost_share) == (ended, cause, 1)
    assert entry.cpu_seconds == pytest.approx(children_seconds() - before, abs=0.05)
    assert entry.shard == evaluate.shards.get(index=0)


def test_devices_cost_their_time_from_the_first_moment(
    run: Run, evaluate: Stage, child: Behave
) -> None:
    child("silent")
    claim = leases.claim_shard(evaluate.pk, "me")
    assert claim is not None
    grant = Grant(0, ("GPU-0", "GPU-1"))
    stopping = threading.Event()
    post = Post("me", ["gpu"], leases, stopping, grant, "here")
    noted: list[dict[str, Any]] = []

    class Watched:
        """The office, which stops the worker once the first usage is noted."""

        def __getattr__(self, name: str) -> Any:
            return getattr(leases, name)

        def record_usage(self, claim: Any, usage: Any) -> None:
            leases.record_usage(claim, usage)
            noted.append(Shard.objects.get(pk=claim.shard_id).usage)
            stopping.set()

    supervisor.supervise(evaluate, claim, Post("me", ["gpu"], Watched(), stopping, grant, "here"))
    assert post.devices == ("GPU-0", "GPU-1")
    assert noted[0] == {"devices": 2}
    entry = LedgerEntry.objects.get()
    assert entry.ended == "released"
    assert entry.device_seconds == pytest.approx(2 * entry.wall_seconds)


def test_the_judge_can_note_only_its_own_and_only_what_is_possible(run: Run) -> None:
    make_role("retort_judge_test", None)
    evaluate = run.stages.get(kind="evaluate")
    Stage.objects.filter(pk=evaluate.pk).update(queue=celery.JUDGE)
    claim = leases.claim_shard(evaluate.pk, "judge:me")
    assert claim is not None
    where = connection.settings_dict
    with psycopg.connect(
        host=where["HOST"], user="retort_judge_test", dbname=where["NAME"], autocommit=True
    ) as judge:

        def note(lease: uuid.UUID, seconds: float, cause: str) -> dict[str, Any]:
            judge.execute(
                "SELECT judge_usage(%s, %s, %s, %s)", [claim.shard_id, lease, seconds, cause]
            )
            return dict(Shard.objects.get(pk=claim.shard_id).usage)

        assert note(uuid.uuid4(), 1.0, "") == {}
        assert note(claim.token, 0.25, "limits") == {"cpu_seconds": 0.25, "cause": "limits"}
        assert note(claim.token, 0.25, "<script>") == {"cpu_seconds": 0.25}
        for absurd in (1e300, float("inf")):
            assert note(claim.token, absurd, "")["cpu_seconds"] < 1024 * 60
        for absurd in (-1e300, float("-inf")):
            assert note(claim.token, absurd, "") == {"cpu_seconds": 0}
        assert note(claim.token, float("nan"), "")["cpu_seconds"] < 1024 * 60

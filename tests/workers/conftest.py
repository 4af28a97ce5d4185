"""Runs to work on: real rows, real files, and a child that needs no model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evaluator.benchmarks import arithmetic
from evaluator.protocol import Protocol

ROOT = Path(__file__).resolve().parents[2]
CHILD = Path(__file__).resolve().parent / "child.py"


@pytest.fixture
def benchmark(transactional_db: None) -> Any:
    from webapp.benchmarks.services import install_benchmark

    return install_benchmark("arithmetic", arithmetic.generate(120, seed=5), "made by a test")


@pytest.fixture
def at_work() -> Callable[[str], threading.Thread]:
    """Let a worker of this name do what the queue ``gpu`` has, in a thread."""
    from django.db import connection

    from workers.tasks.stages import do_work

    def work(worker: str) -> None:
        try:
            do_work(worker, ["gpu"])
        finally:
            connection.close()

    def begin(worker: str) -> threading.Thread:
        thread = threading.Thread(target=work, args=[worker])
        thread.start()
        return thread

    return begin


@pytest.fixture
def run(benchmark: Any, user: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An evaluation of 120 problems × 2 samples in three shards; nobody is rung."""
    from webapp.checkpoints.models import Checkpoint
    from webapp.projects.access import first_project
    from webapp.runs import services, stages

    monkeypatch.setattr(stages, "ring", lambda stage, times: None)
    monkeypatch.setattr(stages, "is_full", lambda queue: False)
    checkpoint = Checkpoint.objects.create(
        project=first_project(), name="tiny", path="checkpoints/tiny", owner=user
    )
    return services.launch_evaluation(
        owner=user, checkpoint=checkpoint, benchmark=benchmark, protocol=Protocol(samples=2)
    )


@pytest.fixture
def evaluate(run: Any) -> Any:
    """The run's evaluate stage."""
    return run.stages.get(kind="evaluate")


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have the supervisor start tests/workers/child.py, which behaves as it is told."""
    from workers import supervisor

    def behave(how: str) -> None:
        monkeypatch.setattr(
            supervisor,
            "child_command",
            lambda stage, spec: [sys.executable, str(CHILD), how, str(spec)],
        )

    return behave


@pytest.fixture
def start_worker(process_environment: dict[str, str]) -> Iterator[Callable[..., Any]]:
    """Start real Celery workers with short times; whatever is left of them is killed."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*, child: str = "", **environment: str) -> subprocess.Popen[bytes]:
        script = ROOT / "tests" / "workers" / "worker.py"
        process = subprocess.Popen(
            [sys.executable, str(script), child],
            cwd=ROOT,
            env=process_environment
            | {"RETORT_LEASE_SECONDS": "3", "RETORT_REAP_SECONDS": "0.5"}
            | environment,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Poll until ``condition`` holds; fails after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return value


@pytest.fixture(name="wait_until")
def wait_until_fixture() -> Callable[..., Any]:
    return wait_until


def group_members(group: int) -> list[int]:
    """Process ids of the live (not zombie) members of a process group."""
    members = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                members.append(int(folder.name))
    return members


@pytest.fixture(name="group_members")
def group_members_fixture() -> Callable[[int], list[int]]:
    return group_members

"""The faults, each a function of the scene; what each breaks, it also mends."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import redis

from webapp.config import celery
from webapp.config.embedded import Servers
from webapp.runs.models import Stage

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Process:
    """What /proc says of a process."""

    pid: int
    parent: int
    session: int
    started: str
    command: str
    environment: str

    @property
    def alive(self) -> bool:
        found = read_process(self.pid)
        return found is not None and found.started == self.started


def read_process(pid: int) -> Process | None:
    """None when it is gone, or a zombie."""
    folder = Path("/proc") / str(pid)
    try:
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        environment = (folder / "environ").read_bytes().decode(errors="replace")
    except OSError:
        return None
    if fields[0] in "ZX":
        return None
    return Process(pid, int(fields[1]), int(fields[3]), fields[19], command, environment)


def processes() -> list[Process]:
    """All live ones."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [found for pid in pids if (found := read_process(pid)) is not None]


@dataclass
class Scene:
    """The servers and workers that the storm goes over."""

    var: Path
    servers: Servers
    rng: random.Random
    lease_seconds: float
    size: int  # workers
    small_disk: bool
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    started: int = 0
    sessions: set[int] = field(default_factory=set)  # of every child that was seen
    wrong: list[str] = field(default_factory=list)  # what was seen that must not be
    stopped: int = 0  # how often a worker was

    @property
    def control(self) -> Path:
        return self.var / "control"

    @property
    def addresses(self) -> dict[str, str]:
        """Of the servers: workers that are told them do not start what the storm has stopped."""
        where = f"host={self.servers.postgres_sockets}&user=postgres"
        return {
            "DATABASE_URL": f"postgres:///retort?{where}",
            "CELERY_BROKER_URL": self.servers.broker_url,
        }

    def fill_up(self) -> None:
        """Start workers until there are enough, on two hosts by turns."""
        self.workers = [worker for worker in self.workers if worker.poll() is None]
        while len(self.workers) < self.size:
            self.started += 1
            host = ("alpha", "beta")[self.started % 2]
            self.workers.append(
                subprocess.Popen(
                    [sys.executable, str(ROOT / "tests" / "chaos" / "worker.py")],
                    cwd=ROOT, start_new_session=True,
                    env=os.environ | self.addresses | {"RETORT_HOST": host},
                    stdout=(log := (self.var / "workers.log").open("ab")), stderr=log,
                )
            )  # fmt: skip
            log.close()

    def children(self) -> list[Process]:
        """The live children of all workers, dead or alive."""
        found = [
            each for each in processes()
            if f"{self.var}/files/runs/" in each.command and "spec.json" in each.command
        ]  # fmt: skip
        self.sessions |= {each.session for each in found}
        return found

    def kill(self, worker: subprocess.Popen[bytes]) -> None:
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()


def kill_child(scene: Scene) -> None:
    for child in scene.rng.sample(children := scene.children(), min(1, len(children))):
        os.kill(child.pid, signal.SIGKILL)


def kill_worker(scene: Scene) -> None:
    scene.kill(scene.rng.choice(scene.workers))


def kill_all_workers(scene: Scene) -> None:
    for worker in scene.workers:
        scene.kill(worker)


def stop_worker_past_its_lease(scene: Scene) -> None:
    """By turns past its grant of devices, too, which may be another's by then."""
    working = [worker for worker in scene.workers if children_of(scene, worker)]
    worker = scene.rng.choice(working or scene.workers)
    scene.stopped += 1
    leases = 1 + scene.stopped % 2
    os.kill(worker.pid, signal.SIGSTOP)
    time.sleep(leases * scene.lease_seconds + 1.5)
    if leases == 2:
        for child in children_of(scene, worker):
            scene.wrong.append(f"child {child.pid} outlived the silence of worker {worker.pid}")
    os.kill(worker.pid, signal.SIGCONT)


def children_of(scene: Scene, worker: subprocess.Popen[bytes]) -> list[Process]:
    return [child for child in scene.children() if child.parent == worker.pid]


def lose_redis(scene: Scene) -> None:
    """Killed, and back empty after a moment."""
    os.kill(int((scene.var / "redis" / "redis.pid").read_text()), signal.SIGKILL)
    time.sleep(scene.rng.uniform(0, 1.5))
    while scene.servers.redis_socket.exists():
        scene.servers.redis_socket.unlink()
    scene.servers._start_redis()


def restart_postgres_in_mid_transaction(scene: Scene) -> None:
    where = f"host={scene.servers.postgres_sockets} user=postgres dbname=retort"
    connection = psycopg.connect(where)
    connection.execute("UPDATE runs_stage SET title = title WHERE state = 'running'")
    scene.servers._postgres_command("pg_ctl", "-m", "fast", "-w", "stop")
    scene.servers._start_postgres()
    connection.close()


def kill_postgres(scene: Scene) -> None:
    scene.servers._postgres_command("pg_ctl", "-m", "immediate", "-w", "stop")
    time.sleep(scene.rng.uniform(0, 1.5))
    scene.servers._start_postgres()


def double_messages(scene: Scene) -> None:
    for stage in Stage.objects.filter(state__in=("queued", "running", "finished")):
        for _ in range(5):
            celery.ring(stage.pk, stage.queue)


def lose_messages(scene: Scene) -> None:
    redis.Redis(unix_socket_path=str(scene.servers.redis_socket)).flushall()


def step_clock(scene: Scene) -> None:
    """In the workers' code, by up to two days, either way."""
    (scene.control / "clock").write_text(str(scene.rng.uniform(-172800, 172800)))


def fill_disk(scene: Scene) -> None:
    """The small file system of the runs' files is full for a while."""
    ballast = scene.var / "files" / "runs" / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 65536)
    except OSError:
        time.sleep(2)
    finally:
        ballast.unlink()


def tear_segment(scene: Scene) -> None:
    """The next segment that a child seals is announced whole and lies there torn."""
    (scene.control / "tear").touch()


FAULTS: tuple[Callable[[Scene], None], ...] = (
    kill_child,
    kill_worker,
    kill_all_workers,
    stop_worker_past_its_lease,
    lose_redis,
    restart_postgres_in_mid_transaction,
    kill_postgres,
    double_messages,
    lose_messages,
    step_clock,
    fill_disk,
    tear_segment,
)

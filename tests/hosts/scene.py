"""An installation of two hosts, a run that both do, and something that breaks in the middle.

    python -m tests.hosts.scene --broker redis --fault kill-host

Prints one JSON object. Each host has a data folder, a name and (with namespaces) a network of its
own; database and broker are reached over TCP with passwords.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from tests.hosts.network import HOSTS, Network
from tests.hosts.servers import BROKERS, Broker, Bucket, Postgres, inside, wait_for

ROOT = Path(__file__).resolve().parents[2]
PROBLEMS, SAMPLES = 150, 2  # of an evaluation: three shards
FAULTS = ("none", "kill-host", "kill-broker", "cut-host")
SHORT = {
    "RETORT_LEASE_SECONDS": "3", "RETORT_REAP_SECONDS": "0.5", "RETORT_RETRY_SECONDS": "0.1",
    "RETORT_GPU_QUEUE_ON_CPU": "1", "RETORT_STAGE_JOBS": "1", "RETORT_STICKY_SECONDS": "2",
    "SECRET_KEY": "the same on every host", "LOG_LEVEL": "WARNING",
    "DJANGO_SETTINGS_MODULE": "webapp.config.settings",
}  # fmt: skip


class Installation:
    """Servers, hosts and their workers."""

    def __init__(self, folder: Path, broker: str, *, bucket: bool) -> None:
        folder.chmod(0o711)  # as root, PostgreSQL runs as another user, who has to pass through
        self.folder = folder
        self.network = Network()
        self.workers: dict[str, list[subprocess.Popen[bytes]]] = {host: [] for host in HOSTS}
        self.postgres: Postgres | None = None
        self.broker: Broker | None = None
        self.bucket: Bucket | None = None
        try:
            self.postgres = Postgres(folder / "room", self.network)
            self.broker = BROKERS[broker](folder / "broker", self.network)
            if bucket:
                self.bucket = Bucket(folder / "bucket", self.network)
        except BaseException:
            self.close()
            raise

    def environment(self, host: str) -> dict[str, str]:
        """What a process of ``host`` is told."""
        assert self.postgres is not None
        assert self.broker is not None
        files = {"RETORT_FILES": str(self.folder / "shared")}
        if self.bucket is not None:  # no disk is shared
            files = self.bucket.environment(self.network.server(host))
        return {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
            **SHORT, **files,
            "RETORT_VAR": str(self.folder / host), "RETORT_HOST": host,
            "DATABASE_URL": self.postgres.url(host), "CELERY_BROKER_URL": self.broker.url(host),
        }  # fmt: skip

    def start_worker(self, host: str, child: str = "") -> None:
        """Start a worker there; ``child`` is how the scripted child behaves."""
        self.start(host, "tests/workers/worker.py", child)

    def start(
        self, host: str, program: str, *told: str, **variables: str
    ) -> subprocess.Popen[bytes]:
        """Start a program of the project there, with more variables, and return its process."""
        with (self.folder / f"{host}.log").open("ab") as log:
            worker = subprocess.Popen(
                [*self.network.command(host), sys.executable, str(ROOT / program), *told],
                cwd=ROOT, env=self.environment(host) | variables, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self.workers[host].append(worker)
        return worker

    def kill(self, host: str) -> None:
        """The host's plug is pulled: its workers and their children are gone at once."""
        from tests.chaos.faults import processes

        for worker in self.workers[host]:
            os.killpg(worker.pid, signal.SIGKILL)
        # A child's environment names no host; it ends itself when its worker is gone.
        for each in processes():
            if f"RETORT_HOST={host}" in each.environment:
                os.kill(each.pid, signal.SIGKILL)
        for worker in self.workers[host]:
            worker.wait()
        self.workers[host].clear()

    def stop_workers(self) -> None:
        """Tell them all to stop, and wait until they have."""
        for worker in (each for group in self.workers.values() for each in group):
            worker.terminate()
        for group in self.workers.values():
            for worker in group:
                worker.wait(timeout=30)
            group.clear()

    def close(self) -> None:
        """Stop everything that was started."""
        for group in self.workers.values():
            for worker in group:
                if worker.poll() is None:
                    os.killpg(worker.pid, signal.SIGKILL)
                worker.wait()
        for server in (self.broker, self.bucket):
            if server is not None:
                server.kill()
        if self.postgres is not None:
            self.postgres.stop()
        self.network.close()


def told(run: Any, stage: str) -> dict[str, Any]:
    """What a run came to, and which hosts did the stage's shards."""
    evaluation = run.evaluations.get()
    rows = evaluation.completions.order_by("problem__problem_id", "sample").values_list(
        "problem__problem_id", "sample", "outcome", "answer"
    )
    shards = run.stages.get(kind=stage).shards
    workers = shards.values_list("worker", flat=True)
    return {
        "state": run.state, "error": run.error, "metrics": evaluation.metrics,
        "rows": [list(row) for row in rows],
        "hosts": sorted({name.partition("/")[0] for name in workers}),
    }  # fmt: skip


def ended(run: Any) -> bool:
    from webapp.runs.models import FINAL_STATES

    run.refresh_from_db()
    return run.state in FINAL_STATES


def replay(owner: Any, benchmark: Any, folder: Path, name: str) -> dict[str, Any]:
    """Import completions made elsewhere and have them graded in a dozen shards."""
    from webapp.runs import services

    path = folder / "rows.jsonl"
    with path.open("w") as file:
        for number, problem in enumerate(benchmark.problems.all()):
            for sample in range(SAMPLES):
                answer = int(problem.answer) + (number * 7 + sample) % 3
                text = "hm" if number % 11 == 0 else rf"<think>hm</think>\boxed{{{answer}}}"
                row = {"problem_id": problem.problem_id, "sample": sample, "completion": text}
                file.write(json.dumps(row) + "\n")
    run = services.import_completions(
        owner=owner, checkpoint_name=name, benchmark=benchmark, path=path
    )
    wait_for(lambda: ended(run), f"{run}")
    return told(run, "grade")


def draw(scene: Installation, owner: Any, benchmark: Any, fault: str) -> dict[str, Any]:
    """An evaluation whose child is scripted, and the fault once both hosts have drawn."""
    from evaluator.protocol import Protocol
    from webapp.runs import services
    from webapp.runs.models import Segment

    checkpoint = checkpoint_of(owner)
    run = services.launch_evaluation(
        owner=owner, checkpoint=checkpoint, benchmark=benchmark, protocol=Protocol(samples=SAMPLES)
    )
    stage = run.stages.get(kind="evaluate")

    def both() -> bool:
        drawn = stage.shards.filter(segments__isnull=False).values_list("worker", flat=True)
        return {name.partition("/")[0] for name in drawn} == set(HOSTS)

    wait_for(both, "both hosts draw")
    if fault == "kill-host":
        scene.kill("beta")
    elif fault == "kill-broker":
        assert scene.broker is not None
        scene.broker.kill()
        scene.broker.start()
    elif fault == "cut-host" and scene.network.isolated:
        cut_off(scene, stage)
    before = set(Segment.objects.values_list("pk", flat=True))
    wait_for(lambda: ended(run), f"{run}")
    kept = set(Segment.objects.values_list("pk", flat=True))
    return {**told(run, "evaluate"), "wrong": wrong_keys(run), "kept": before <= kept}


def cut_off(scene: Installation, stage: Any) -> None:
    """Pull beta's cable while a transaction of beta's holds locks, until alpha has taken over.

    The server hears nothing of the end of such a transaction: without a word of ours it keeps the
    locks for as long as TCP likes, which is hours.
    """
    from django.db import transaction

    from webapp.core.locks import lock_store
    from webapp.runs.leases import lock_run

    held = stage.shards.filter(worker__startswith="beta/", state="running")
    sign = scene.folder / "held"
    scene.start("beta", "tests/hosts/holder.py", str(held.get().pk), str(sign))
    wait_for(sign.exists, "a transaction of beta's holds the locks")
    scene.network.cut("beta")
    wait_for(lambda: not held.exists(), "what the host that was cut off held is taken over", 90)
    with transaction.atomic():  # waits for whoever holds them
        lock_store()
        lock_run(stage.run_id)
    scene.network.mend("beta")


def wrong_keys(run: Any) -> list[str]:
    """Keys that were lost or doubled, in the rows and in the accepted segments, or misdrawn."""
    from evaluator.records import completion_seed
    from evaluator.store import read_segment
    from webapp.runs import files

    evaluation = run.evaluations.get()
    ids = evaluation.benchmark.problems.values_list("problem_id", flat=True)
    wanted = Counter((problem, sample) for problem in ids for sample in range(SAMPLES))
    rows = Counter(evaluation.completions.values_list("problem__problem_id", "sample"))
    stage = run.stages.get(kind="evaluate")
    drawn = [
        row
        for path in files.accepted_segments(stage)
        for _, row in read_segment(files.segment_path(stage, path.name))
    ]
    written = Counter((row["problem_id"], row["sample"]) for row in drawn)
    wrong = [f"row {key}" for key in (rows - wanted) + (wanted - rows)]
    wrong += [f"segment {key}" for key in (written - wanted) + (wanted - written)]
    for row in drawn:
        if row["seed"] != completion_seed(0, row["problem_id"], row["sample"]):
            wrong.append(f"seed of {row['problem_id']}")
    return wrong


def checkpoint_of(owner: Any) -> Any:
    """A checkpoint of which the scripted child needs nothing but that it is there."""
    from django.conf import settings

    from webapp.checkpoints.models import Checkpoint
    from webapp.core import store
    from webapp.projects.access import first_project

    relative = "checkpoints/tiny"
    folder = Path(settings.MEDIA_ROOT) / relative
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    store.publish(relative)
    return Checkpoint.objects.create(
        project=first_project(), name="tiny", path=relative, owner=owner
    )


def play(scene: Installation, fault: str, *, replays: bool) -> dict[str, Any]:
    """Do it all and tell."""
    from django.core.management import call_command

    from evaluator.benchmarks import arithmetic
    from webapp.benchmarks.services import install_benchmark
    from webapp.core.models import User
    from webapp.runs.models import WorkerHeartbeat

    call_command("migrate", verbosity=0)
    owner = User.objects.create_user("ada")
    benchmark = install_benchmark("arithmetic", arithmetic.generate(PROBLEMS, seed=5), "a scene")
    result: dict[str, Any] = {"isolated": scene.network.isolated}
    scene.start_worker("alpha", "slow")
    if replays:
        result["alone"] = replay(owner, benchmark, scene.folder, "alone")
    scene.start_worker("beta", "slow")
    wait_for(lambda: WorkerHeartbeat.objects.count() == len(HOSTS), "both hosts greet")
    if replays:
        result["together"] = replay(owner, benchmark, scene.folder, "together")
    result["drawn"] = draw(scene, owner, benchmark, fault)
    workers = [worker for group in scene.workers.values() for worker in group]
    result["ended_early"] = [worker.args for worker in workers if worker.poll() is not None]
    scene.stop_workers()
    return result


def _enter(network: Network) -> None:
    """Go into the server room for good."""
    inside(network).__enter__()


def main() -> None:
    """Set the scene in a folder that is gone afterwards (unless --keep)."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--broker", choices=BROKERS, default="redis")
    parser.add_argument("--fault", choices=FAULTS, default="none")
    parser.add_argument("--replays", action="store_true", help="grade on one host, then on two")
    parser.add_argument("--bucket", action="store_true", help="files through S3, no shared disk")
    parser.add_argument("--distil", action="store_true", help="a distillation instead, by a bucket")
    parser.add_argument("--judge", action="store_true", help="programs instead, by a bucket")
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="retort-hosts-"))
    bucket = options.bucket or options.distil or options.judge
    scene = Installation(folder, options.broker, bucket=bucket)
    try:
        assert scene.postgres is not None
        assert scene.broker is not None
        # The test itself is beside the hosts: it reaches the database by its socket.
        os.environ |= scene.environment("alpha") | {
            "DATABASE_URL": scene.postgres.local_url, "RETORT_VAR": str(folder / "web"),
            "CELERY_BROKER_URL": "memory://localhost",  # the reaper rings
        }  # fmt: skip
        if scene.bucket is not None:  # there is no other way to it than by the network
            _enter(scene.network)
            os.environ["RETORT_S3_ENDPOINT_URL"] = f"http://127.0.0.1:{scene.bucket.port}"
        import django

        django.setup()
        if options.distil:
            from tests.hosts import distilling

            result = distilling.play(scene)
        elif options.judge:
            from tests.hosts import judged

            result = judged.play(scene)
        else:
            result = play(scene, options.fault, replays=options.replays)
        from django.db import connection

        connection.close()
    finally:
        scene.close()
        if options.keep:
            sys.stderr.write(f"{folder}\n")
        else:
            shutil.rmtree(folder)
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()

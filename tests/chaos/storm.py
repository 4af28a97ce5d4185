"""The storm: real workers on servers of their own, faults of every kind, then a reckoning.

    python -m tests.chaos.storm --faults 200 --runs 20

Nothing outside its private folder is touched. Prints one JSON object; exit code 1 where something
was lost, doubled, left behind or left open.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

LEASE_SECONDS = 3.0
PROBLEMS, SAMPLES = 48, 2


def prepare(folder: Path) -> bool:
    """Point this process, and all it starts, at the folder; returns whether its disk is small."""
    folder.chmod(0o711)  # as root, PostgreSQL runs as another user, who has to pass through
    for name in ("DATABASE_URL", "CELERY_BROKER_URL", "SECRET_KEY", "CUDA_VISIBLE_DEVICES"):
        os.environ.pop(name, None)
    os.environ |= {
        "RETORT_VAR": str(folder), "DJANGO_SETTINGS_MODULE": "webapp.config.settings",
        "RETORT_LEASE_SECONDS": str(LEASE_SECONDS), "RETORT_REAP_SECONDS": "0.5",
        "RETORT_RETRY_SECONDS": "0.1", "RETORT_MAX_FAILURES": "50", "RETORT_STICKY_SECONDS": "2",
        "RETORT_STAGE_JOBS": "1", "LOG_LEVEL": "WARNING",
    }  # fmt: skip
    (folder / "control").mkdir()
    runs = folder / "files" / "runs"
    runs.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(runs)]
    return os.geteuid() == 0 and subprocess.run(mount, check=False).returncode == 0


def launch(benchmark: Any, checkpoint: Any) -> Any:
    """One more run: an evaluation in twelve shards, graded in four and merged."""
    from evaluator.protocol import Protocol
    from webapp.runs import plans, services

    plans.SHARD_PROBLEMS, plans.GRADE_SHARD = PROBLEMS // 12, PROBLEMS * SAMPLES // 4
    return services.launch_evaluation(
        owner=checkpoint.owner, checkpoint=checkpoint, benchmark=benchmark,
        protocol=Protocol(samples=SAMPLES),
    )  # fmt: skip


def ledger_faults_of(run: Any) -> list[str]:
    """Every lease of the run stands in the ledger once; one given back counts as no attempt."""
    from django.db.models import Sum

    from webapp.runs.models import Shard

    shards = Shard.objects.filter(stage__run=run)
    attempts = shards.aggregate(sum=Sum("attempts"))["sum"] or 0
    entries = run.entries.exclude(ended="released").count()
    wrong = [] if entries == attempts else [f"{run}: {attempts} leases, {entries} in the ledger"]
    finished = dict(Counter(run.entries.filter(ended="finished").values_list("shard", flat=True)))
    wrong += [f"{run}: shard {pk} finished {n} times" for pk, n in finished.items() if n != 1]
    if open_leases := shards.exclude(lease_token=None).count():
        wrong.append(f"{run}: {open_leases} leases are open")
    return wrong


def faults_of(run: Any) -> list[str]:
    """What is wrong with a run after the storm, in words; nothing in the best case."""
    from evaluator.records import completion_seed
    from evaluator.store import read_segment
    from webapp.runs import files
    from webapp.runs.models import State

    if run.state == State.FAILED:
        return [] if run.error else [f"{run}: failed without a reason"]
    if run.state != State.FINISHED:
        return [f"{run}: {run.state} after the storm"]
    wrong = []
    evaluation = run.evaluations.get()
    ids = list(evaluation.benchmark.problems.values_list("problem_id", flat=True))
    wanted = Counter((problem, sample) for problem in ids for sample in range(SAMPLES))
    rows = Counter(evaluation.completions.values_list("problem__problem_id", "sample"))
    stage = run.stages.get(kind="evaluate")
    drawn = [row for path in files.accepted_segments(stage) for _, row in read_segment(path)]
    written = Counter((row["problem_id"], row["sample"]) for row in drawn)
    for name, found in (("rows", rows), ("segments", written)):
        wrong += [f"{run}: {name} lost {key}" for key in wanted - found]
        wrong += [f"{run}: {name} doubled {key}" for key in found - wanted]
    for row in drawn:
        if row["seed"] != completion_seed(0, row["problem_id"], row["sample"]):
            wrong.append(f"{run}: another seed for {row['problem_id']}")
    outcomes = sum((evaluation.metrics or {}).get("outcomes", {}).values())
    if outcomes != PROBLEMS * SAMPLES or evaluation.completions.filter(outcome="").exists():
        wrong.append(f"{run}: {outcomes} outcomes")
    return wrong


def shared_devices(scene: Any) -> list[str]:
    """Devices that two live children see at this moment."""
    holders: dict[str, Any] = {}
    wrong = []
    for child in scene.children():
        if child.pid != child.session:
            continue  # a forked helper of a child
        pairs = dict(each.partition("=")[::2] for each in child.environment.split("\0"))
        for name in filter(None, pairs.get("CUDA_VISIBLE_DEVICES", "").split(",")):
            other = holders.setdefault(name, child)
            if other is not child and other.alive and child.alive:
                wrong.append(f"device {name}: used by {other.pid} and {child.pid}")
    return wrong


def steadily(act: Any) -> Any:
    """Ask the database again when it has just been restarted."""
    from django.db import InterfaceError, OperationalError, connection

    for _ in range(20):
        try:
            return act()
        except (OperationalError, InterfaceError):
            connection.close()
            time.sleep(0.5)
    return act()


def weather(scene: Any, options: argparse.Namespace, result: dict[str, Any]) -> list[Any]:
    """Launch the runs and inject the faults, evenly over them; returns the runs."""
    from tests.chaos import faults
    from webapp.runs.models import FINAL_STATES, Run

    benchmark, checkpoint = result.pop("ingredients")
    kinds = [f for f in faults.FAULTS if scene.small_disk or f is not faults.fill_disk]
    runs: list[Any] = []
    deck: list[Any] = []
    for number in range(options.faults):
        while len(runs) * options.faults < (number + 1) * options.runs:
            runs.append(steadily(lambda: launch(benchmark, checkpoint)))
        live = steadily(lambda: Run.objects.exclude(state__in=FINAL_STATES).count())
        if not live:  # nothing to break: there shall always be work under way
            runs.append(steadily(lambda: launch(benchmark, checkpoint)))
        if not deck:
            deck = scene.rng.sample(kinds, len(kinds))
        fault = deck.pop()
        steadily(lambda fault=fault: fault(scene))
        result["faults"][fault.__name__] += 1
        result["wrong"] += shared_devices(scene)
        time.sleep(scene.rng.uniform(0.2, options.pause))
        scene.fill_up()
    return runs


def reckon(scene: Any, runs: list[Any], result: dict[str, Any], patience: float) -> None:
    """Wait for every run to end, stop the workers, and look at what is left."""
    from tests.chaos.faults import processes
    from webapp.runs.models import FINAL_STATES, DeviceRequest, Run

    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        scene.fill_up()
        result["wrong"] += shared_devices(scene)
        if not steadily(lambda: Run.objects.exclude(state__in=FINAL_STATES).exists()):
            break
        time.sleep(0.5)
    deadline = time.monotonic() + 5 * LEASE_SECONDS
    while DeviceRequest.objects.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    result["held_devices"] = DeviceRequest.objects.count()
    scene.children()
    for worker in scene.workers:
        worker.terminate()
    for worker in scene.workers:
        worker.wait(timeout=30)
    left = [each for each in processes() if each.session in scene.sessions]
    result["orphans"] = [each.command for each in (*left, *scene.children())]
    for run in runs:
        run.refresh_from_db()
        result["wrong"] += faults_of(run) + ledger_faults_of(run)
        result["runs"][str(run.state)] += 1
        if run.error:
            result["reasons"].append(run.error)


def storm(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Set the scene, let it storm, and tell."""
    small_disk = prepare(folder)
    import django

    django.setup()
    from django.core.management import call_command

    from evaluator.benchmarks import arithmetic
    from tests.chaos.faults import Scene
    from webapp.benchmarks.services import install_benchmark
    from webapp.checkpoints.models import Checkpoint
    from webapp.config.embedded import Servers
    from webapp.core.models import User
    from webapp.projects.access import first_project

    servers = Servers(folder)
    servers.ensure_running()
    call_command("migrate", verbosity=0)
    owner = User.objects.create_user("ada")
    scene = Scene(
        folder, servers, random.Random(options.seed), LEASE_SECONDS, options.workers, small_disk
    )
    result: dict[str, Any] = {
        "faults": Counter(), "runs": Counter(), "wrong": [], "reasons": [],
        "ingredients": (
            install_benchmark("arithmetic", arithmetic.generate(PROBLEMS, seed=5), "a storm"),
            Checkpoint.objects.create(
                project=first_project(), name="tiny", path="checkpoints/tiny", owner=owner
            ),
        ),
    }  # fmt: skip
    scene.wrong = result["wrong"]
    began = time.monotonic()
    try:
        scene.fill_up()
        runs = weather(scene, options, result)
        reckon(scene, runs, result, options.patience)
    finally:
        for worker in scene.workers:
            if worker.poll() is None:
                scene.kill(worker)
    result["seconds"] = round(time.monotonic() - began, 1)
    result["workers_started"] = scene.started
    return result


def main() -> int:
    """Run it in a folder that is gone afterwards (unless --keep)."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pause", type=float, default=2.5, help="longest pause between faults, s")
    parser.add_argument("--patience", type=float, default=300.0, help="for the last run to end, s")
    parser.add_argument("--keep", action="store_true", help="leave the folder behind")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="retort-storm-"))
    try:
        result = storm(folder, options)
    finally:
        servers_end(folder)
        if options.keep:
            sys.stderr.write(f"{folder}\n")
        else:
            subprocess.run(
                ["umount", str(folder / "files" / "runs")], check=False, capture_output=True
            )
            shutil.rmtree(folder)
    sys.stdout.write(json.dumps(result) + "\n")
    return 1 if result["wrong"] or result["orphans"] or result["held_devices"] else 0


def servers_end(folder: Path) -> None:
    """Stop the storm's servers before their folder goes."""
    from django.db import connection

    from webapp.config.embedded import Servers

    connection.close()
    Servers(folder).stop()


if __name__ == "__main__":
    sys.exit(main())

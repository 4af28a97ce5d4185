"""The doctor on a sound installation, and on one where each thing is really broken."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from distiller import confining
from evaluator.sandbox import box
from tests.deploy.test_deploy import active_example
from tests.webapp.samples import make_checkpoint
from webapp.core import doctor, sealing
from webapp.endpoints.models import Endpoint
from webapp.runs.models import WorkerHeartbeat

ROOT = Path(__file__).resolve().parents[2]


def examine(environment: dict[str, str]) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "manage.py", "doctor", "--json"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    return done.returncode, {each["name"]: each for each in json.loads(done.stdout)}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_sound_deployment_is_in_order_and_a_broken_one_is_told_all_at_once(
    process_environment: dict[str, str], tmp_path: Path
) -> None:
    sound = active_example() | process_environment | {"RETORT_FILES": str(tmp_path / "files")}
    WorkerHeartbeat.objects.create(
        name="alpha/1", queues="gpu,cpu,judge,upkeep", seen_at=timezone.now()
    )
    code, found = examine(sound)
    assert {name for name, each in found.items() if not each["ok"]} == set()
    assert code == 0
    (tmp_path / "file").write_text("")
    code, found = examine(
        sound
        | {
            "DEBUG": "1", "SECRET_KEY": "short", "RETORT_FILES": str(tmp_path / "file"),
            "CELERY_BROKER_URL": f"redis://127.0.0.1:{free_port()}/0",
            "DATABASE_URL": f"postgres://eve:wrong@127.0.0.1:{free_port()}/retort",
        }
    )  # fmt: skip
    assert code == 1
    wrong = {name for name, each in found.items() if not each["ok"]}
    assert {"settings", "database", "migrations", "keys", "broker", "storage", "workers"} <= wrong
    assert "DATABASE_URL" in found["database"]["sentence"]
    assert "CELERY_BROKER_URL" in found["broker"]["sentence"]
    assert "RETORT_FILES" in found["storage"]["sentence"]
    assert "wrong" not in json.dumps([each["sentence"] for each in found.values()])


def sentence_of(name: str) -> str:
    (found,) = (each for each in doctor.examine() if each.name == name)
    assert not found.ok
    return found.sentence


def test_what_breaks_while_the_servers_run(
    user: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    WorkerHeartbeat.objects.create(name="a/1", queues="gpu,cpu", seen_at=timezone.now())
    WorkerHeartbeat.objects.create(
        name="a/2", queues="judge,upkeep",
        seen_at=timezone.now() - timedelta(minutes=5),
    )  # fmt: skip
    assert "judge, upkeep" in sentence_of("workers")
    Endpoint.objects.create(
        checkpoint=make_checkpoint(user, "served", path="", content_hash=""), base_url="https://x.example.org",
        model="m", owner=user, sealed_key=sealing.seal("k"),
    )  # fmt: skip
    settings.SECRET_KEY = "another"
    assert "1 stored secrets" in sentence_of("keys")
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'runs'")
    assert "manage.py migrate" in sentence_of("migrations")
    monkeypatch.setattr(doctor, "LEAST_FREE_BYTES", float("inf"))
    monkeypatch.setattr(doctor, "LEAST_FREE_SHARE", 1.0)
    assert "make room" in sentence_of("storage")
    later = timezone.now() + timedelta(hours=1)
    monkeypatch.setattr(doctor.timezone, "now", lambda: later)
    assert "NTP" in sentence_of("clock")
    box.check_available.cache_clear()
    monkeypatch.setenv("PATH", "/nowhere")
    assert "bubblewrap" in sentence_of("sandbox")
    box.check_available.cache_clear()


@pytest.mark.parametrize("works", [True, False])
def test_it_says_how_uploads_are_looked_at(
    works: bool, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confining, "why_not", lambda: "" if works else "there is no bubblewrap.")
    assert confining.confinement() in doctor.CHECKS["quarantine"]()
    assert ("no bubblewrap" in doctor.CHECKS["quarantine"]()) != works
    settings.RETORT_QUEUES = ["gpu"]
    assert "not needed here" in doctor.CHECKS["quarantine"]()

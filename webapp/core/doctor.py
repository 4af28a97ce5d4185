"""What a deployment lacks: one line for each thing that it needs, with the remedy."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from django.conf import settings
from django.core import checks
from django.db import Error, connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models.functions import Now
from django.utils import timezone

from distiller import confining
from evaluator.sandbox import box
from evaluator.sandbox.errors import SandboxError
from webapp.config import celery
from webapp.core import backup
from webapp.monitoring import health

OLDEST_POSTGRESQL = 15
CLOCK_SECONDS = 5.0  # leases bear more; log lines of two hosts can no longer be put in order
LEAST_FREE_BYTES = 5_000_000_000
LEAST_FREE_SHARE = 0.05
BROKER_SECONDS = 5.0


class IllError(Exception):
    """What is wrong and how to mend it, in a sentence."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one thing: in order, or what is wrong with it."""

    name: str
    ok: bool
    sentence: str


def examine() -> list[Finding]:
    """Look at everything; nothing that is broken keeps the rest from being looked at."""
    return [_finding(name, check) for name, check in CHECKS.items()]


def _finding(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, check())
    except IllError as error:
        return Finding(name, False, str(error))
    except Error as error:
        connection.close()
        return Finding(name, False, f"the database did not answer ({_first_line(error)}).")


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0][:200]


def _database() -> str:
    try:
        connection.ensure_connection()
    except Error as error:
        raise IllError(
            f"cannot be reached ({_first_line(error)}); look at DATABASE_URL and the server."
        ) from error
    version = int(connection.pg_version) // 10000  # type: ignore[attr-defined]
    if version < OLDEST_POSTGRESQL:
        raise IllError(f"PostgreSQL {version} is too old; install {OLDEST_POSTGRESQL} or newer.")
    return f"PostgreSQL {version}"


def _migrations() -> str:
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if plan:
        raise IllError(f"{len(plan)} are not applied; run manage.py migrate.")
    return "all applied"


def _clock() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        (theirs,) = cursor.fetchone()
    seconds = abs((timezone.now() - theirs).total_seconds())
    if seconds > CLOCK_SECONDS:
        raise IllError(
            f"this host's is {seconds:.0f} s off the database's; have both keep time by NTP."
        )
    return f"within {CLOCK_SECONDS:g} s of the database's"


def _broker() -> str:
    try:
        celery.check_broker(BROKER_SECONDS)
    except Exception as error:
        raise IllError(
            f"cannot be reached ({_first_line(error)}); look at CELERY_BROKER_URL and the server."
        ) from error
    return "answers"


def _storage() -> str:
    try:
        health.storage()
    except Exception as error:
        raise IllError(
            f"a file cannot be written, read and removed ({_first_line(error)}); look at "
            "RETORT_FILES or the bucket, and their rights."
        ) from error
    usage = shutil.disk_usage(_existing(Path(settings.MEDIA_ROOT)))
    if usage.free < min(LEAST_FREE_BYTES, usage.total * LEAST_FREE_SHARE):
        raise IllError(f"only {usage.free / 1e9:.1f} GB are free; make room, or clear checkpoints.")
    return f"{usage.free / 1e9:.0f} GB free"


def _existing(path: Path) -> Path:
    return next(each for each in (path, *path.parents) if each.exists())


def _workers() -> str:
    from webapp.runs.hosts import SILENT_SECONDS
    from webapp.runs.models import WorkerHeartbeat

    recent = Now() - timedelta(seconds=SILENT_SECONDS)
    living = WorkerHeartbeat.objects.filter(seen_at__gt=recent, draining=False)
    served = {
        name for names in living.values_list("queues", flat=True) for name in names.split(",")
    }
    missing = [name for name in celery.QUEUES if name not in served]
    if missing:
        raise IllError(
            f"no living worker serves {', '.join(missing)}; start python -m workers "
            "(RETORT_QUEUES, RETORT_GPU_QUEUE_ON_CPU)."
        )
    return f"{living.count()} alive, every queue served"


def _sandbox() -> str:
    if celery.JUDGE not in settings.RETORT_QUEUES:
        return "not needed here: RETORT_QUEUES has no judge"
    try:
        box.check_available()  # runs a program that does nothing
    except SandboxError as error:
        raise IllError(str(error)) from error
    return f"a program ran ({box.isolation()})"


def _quarantine() -> str:
    if celery.CPU not in settings.RETORT_QUEUES:
        return "not needed here: RETORT_QUEUES has no cpu"
    return f"uploads are looked at {confining.confinement()}"


def _settings() -> str:
    found = checks.run_checks(include_deployment_checks=True)
    wrong = [each for each in found if not each.is_silenced() and each.level >= checks.WARNING]
    if wrong:
        names = ", ".join(str(each.id) for each in wrong)
        raise IllError(f"{names}; manage.py check --deploy says what to set.")
    return "manage.py check --deploy is clean"


def _keys() -> str:
    if count := backup.unreadable_secrets():
        raise IllError(
            f"{count} stored secrets cannot be read; set SECRET_KEY and RETORT_ENCRYPTION_KEYS to "
            "what the other hosts have."
        )
    return "open every stored secret"


CHECKS: dict[str, Callable[[], str]] = {
    "settings": _settings,
    "database": _database,
    "migrations": _migrations,
    "clock": _clock,
    "keys": _keys,
    "broker": _broker,
    "storage": _storage,
    "workers": _workers,
    "sandbox": _sandbox,
    "quarantine": _quarantine,
}

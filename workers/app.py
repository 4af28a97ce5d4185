"""The worker: `python -m workers`, or `celery -A workers.app worker --pool solo -Q gpu,cpu`.

One process does one stage at a time (the solo pool): the work itself is in a child process, and to
do more at once is to start more workers. A thread of each worker reaps and gives signs of life.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.config.settings")

from webapp.config.embedded import ensure_running

ensure_running()
django.setup()

from celery import signals  # noqa: E402
from celery.platforms import SecurityWarning  # noqa: E402

from webapp.config.celery import app  # noqa: E402
from webapp.core import logs  # noqa: E402
from webapp.core.errors import UserError  # noqa: E402
from workers import clerk, judging, notifying, queues  # noqa: E402
from workers.names import worker_name  # noqa: E402
from workers.tasks import intake, stages, upkeep  # noqa: E402

__all__ = ["app", "intake", "main"]


_upkeep: list[threading.Thread] = []


@signals.worker_ready.connect
def _begin(**_: object) -> None:
    name = worker_name()
    logs.identify(name)
    restricted = judging.is_restricted()
    if restricted:
        _upkeep.append(upkeep.start_judging(name))
    else:
        threads = (upkeep.start(name, queues.served()), notifying.start(), clerk.start())
        _upkeep.extend(threads)


@signals.worker_shutdown.connect
def _end(**_: object) -> None:
    upkeep.stopping.set()
    for thread in _upkeep:
        thread.join(timeout=5)


@signals.worker_shutting_down.connect
def _stop(**_: object) -> None:
    """Told to stop: the running child is ended and its shard given back."""
    stages.stopping.set()


@signals.setup_logging.connect
def _keep_logging(**_: object) -> None:
    """Django's settings have set the logs up; Celery must leave them so."""


def main() -> None:
    """Serve this machine's queues until told to stop."""
    try:
        served = queues.served()
        queues.refuse_more_than_the_role_may(served, restricted=judging.is_restricted())
    except UserError as error:
        sys.stderr.write(f"{error.sentence}\n")
        sys.exit(2)
    # Celery's concern about root is pickled messages; ours are JSON, and hold an id.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    app.start(
        argv=[
            "--quiet", "worker", "--pool=solo", f"--queues={','.join(served)}",
            f"--hostname={worker_name()}", "--without-gossip", "--without-mingle",
            "--without-heartbeat",
        ]
    )  # fmt: skip

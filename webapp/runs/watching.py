"""Following a run from a command, by its rows."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from django.db.models.functions import Now

from webapp.runs.models import FINAL_STATES, Run, Stage, State, WorkerHeartbeat

POLL_SECONDS = 0.5
WORKER_SECONDS = 30.0  # a worker silent for so long is counted as gone


def worker_alive() -> bool:
    """Whether a worker gave a sign of life lately, by the database's clock."""
    return WorkerHeartbeat.objects.filter(
        seen_at__gt=Now() - timedelta(seconds=WORKER_SECONDS)
    ).exists()


def wait_for(run: Run, on_poll: Callable[[list[Stage]], None] = lambda stages: None) -> Run:
    """Poll until the run is final; ``on_poll`` sees its stages each time. Returns it fresh."""
    while True:
        run.refresh_from_db()
        on_poll(list(run.stages.order_by("position")))
        if run.state in FINAL_STATES:
            return run
        time.sleep(POLL_SECONDS)


def failure(run: Run) -> str:
    """The run's error, with the last lines of the stage that failed."""
    stage = run.stages.filter(state=State.FAILED).first()
    tail = f"\n{stage.log_tail}" if stage is not None and stage.log_tail else ""
    return f"{run.name}: {run.state}. {run.error}{tail}"

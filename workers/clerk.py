"""Reports and disputed scores, made in children by a thread of every trusted worker.

Not a task: a worker does one stage at a time, and nobody's report should wait for a training.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading

from django.conf import settings
from django.db import connection

from webapp.leaderboard import desk
from workers.tasks.upkeep import attempt, stopping

LOOK_SECONDS = 2.0  # a person waits for it
CHILD_SECONDS = desk.CLAIM_SECONDS - 60.0

logger = logging.getLogger(__name__)


def start() -> threading.Thread:
    """Begin; the thread ends with the upkeep's ``stopping``."""
    thread = threading.Thread(target=_run, name="clerk", daemon=True)
    thread.start()
    return thread


def _run() -> None:
    while not stopping.is_set():
        attempt(_look)
        stopping.wait(LOOK_SECONDS)
    connection.close()


def _look() -> None:
    while not stopping.is_set() and (job := desk.claim()) is not None:
        carry_out(job)


def carry_out(job: desk.Job, seconds: float = CHILD_SECONDS) -> None:
    """Have a child do it, for ``seconds`` at most, and write down why where it could not.

    What a worker leaves behind when it is killed is done again when its claim has run out.
    """
    command = [sys.executable, "manage.py", "desk", job.kind, str(job.pk)]
    with subprocess.Popen(
        command, cwd=settings.BASE_DIR, start_new_session=True, env=os.environ.copy(),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, errors="replace",
    ) as child:  # fmt: skip
        try:
            _, said = child.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
            desk.fail(job, f"It took longer than {seconds:.0f} s and was ended.")
            return
    if child.returncode == 0:
        return
    lines = [line for line in said.splitlines() if line.strip()]
    logger.warning("%s %d: exit code %d: %s", job.kind, job.pk, child.returncode, said[-2000:])
    sentence = lines[-1] if lines else f"its process ended with exit code {child.returncode}"
    desk.fail(job, sentence.removeprefix("CommandError: ")[:500])

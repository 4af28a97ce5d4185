"""Telling people how their runs ended, in a thread of every trusted worker.

Not a task: a worker does one stage at a time, and nobody's message should wait for another's
training to end.
"""

from __future__ import annotations

import threading

from django.conf import settings
from django.db import connection

from webapp.notifications import services
from workers.tasks.upkeep import attempt, stopping


def start() -> threading.Thread:
    """Begin; the thread ends with the upkeep's ``stopping``."""
    thread = threading.Thread(target=_run, name="notifying", daemon=True)
    thread.start()
    return thread


def _run() -> None:
    while not stopping.is_set():
        attempt(services.note_ends)
        attempt(services.deliver_due)
        stopping.wait(settings.RETORT_REAP_SECONDS)
    connection.close()

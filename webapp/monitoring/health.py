"""Is this process alive, and can it do its work? Each check is bounded in time and done once.

Strangers may ask, so an answer names what is wrong and nothing more; the log has the rest.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from webapp.config import celery

SECONDS = 3.0  # for all checks, which run side by side
FRESH_SECONDS = 1.0  # an answer is given again for so long: nobody can have us ask more often

logger = logging.getLogger(__name__)


class NotReadyError(Exception):
    """A check says what is wrong."""


def database() -> None:
    """It answers."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    finally:
        connection.close()


def migrations() -> None:
    """Every migration that this code knows has been applied."""
    try:
        executor = MigrationExecutor(connection)
        if plan := executor.migration_plan(executor.loader.graph.leaf_nodes()):
            names = ", ".join(f"{each.app_label}.{each.name}" for each, _ in plan)
            raise NotReadyError(f"not applied: {names}; run manage.py migrate")
    finally:
        connection.close()


def broker() -> None:
    """It takes a connection."""
    celery.check_broker(SECONDS)


def storage() -> None:
    """A file can be written, read and taken away."""
    content = uuid.uuid4().hex.encode()
    name = default_storage.save(f".ready/{content.decode()}", ContentFile(content))
    try:
        with default_storage.open(name) as file:
            if file.read() != content:
                raise NotReadyError("a file is read as another than was written")
    finally:
        default_storage.delete(name)


@dataclass(slots=True)
class _Check:
    """A check with its latest answer. It never runs twice at a time, however long it hangs."""

    run: Callable[[], None]
    answer: bool | None = None
    at: float = float("-inf")
    thread: threading.Thread | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> None:
        """Begin, unless the answer is fresh or still to come."""
        with self.lock:
            fresh = time.monotonic() - self.at < FRESH_SECONDS
            if fresh or (self.thread is not None and self.thread.is_alive()):
                return
            self.answer = None
            self.thread = threading.Thread(target=self._run, daemon=True)
            self.thread.start()

    def wait(self, deadline: float) -> bool:
        """Whether all was well by then."""
        thread = self.thread
        if thread is not None:
            thread.join(max(deadline - time.monotonic(), 0.0))
        return self.answer is True

    def _run(self) -> None:
        try:
            self.run()
            answer = True
        except Exception as error:  # whatever it is: the check failed, and the log says how
            kind = type(error).__name__
            logger.warning("not ready: %s (%s: %s)", self.run.__name__, kind, error)
            answer = False
        self.answer, self.at = answer, time.monotonic()


_checks = {each.__name__: _Check(each) for each in (database, migrations, broker, storage)}


def faults() -> list[str]:
    """The names of the checks that fail, or do not answer in time; empty when we are ready."""
    deadline = time.monotonic() + SECONDS
    for check in _checks.values():
        check.start()
    return [name for name, check in _checks.items() if not check.wait(deadline)]

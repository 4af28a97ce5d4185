"""A training's resume states in the bucket, so that any host goes on where another one stopped.

With a shared disk all of this does nothing: the state lies where every host looks for it. A state
is a folder ``<stage>/states/<place>/step-N-<lease>`` of the store, whole where its manifest is;
``place`` is what the resume folder is called, so that a state is brought only to a training of as
many processes on such a device (it would be refused by another).
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
import threading
from pathlib import Path

from evaluator.errors import StoreError
from webapp.core import logs, store
from webapp.core.errors import UserError
from webapp.runs import files
from webapp.runs.models import Stage

FOLDER = "states"  # of a stage, in the store
LINKS = ".state-"  # what a state is called here while it is sent
_NAME = re.compile(r"step-(\d+)-[0-9a-f]+")
_TRIES = 2  # an older state may be taken away by who has put a newer one there

logger = logging.getLogger(__name__)


class Keeper:
    """Sends states one at a time beside the training; of those that wait, only the newest."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._changing = threading.Lock()
        self._waiting: tuple[str, Path] | None = None
        self._sender: threading.Thread | None = None
        self._over = False

    def offer(self, lease: str, folder: Path) -> None:
        """The child has written this state; it may take it away again when it has a newer one."""
        if not store.is_remote() or (linked := self._linked(folder)) is None:
            return
        place = f"{_states_of(self._stage)}/{folder.parent.name}"
        name = f"{place}/{folder.name}-{logs.short_lease(lease)}"
        with self._changing:
            older, self._waiting = self._waiting, (name, linked)
            if self._sender is None:
                self._sender = threading.Thread(
                    target=logs.carried(self._send), name="states", daemon=True
                )
                self._sender.start()
        if older is not None:
            shutil.rmtree(older[1])

    def end(self) -> None:
        """The training is done: nobody goes on from its states any more."""
        with self._changing:
            self._over = True
            if self._sender is not None:
                return  # it clears up when it comes back
        self._clear()

    def wait(self) -> None:
        """Until what was offered has been sent."""
        if (sender := self._sender) is not None:
            sender.join()

    def _linked(self, folder: Path) -> Path | None:
        """Names of our own for the state's files; None where it has gone already."""
        links = Path(tempfile.mkdtemp(prefix=LINKS, dir=files.stage_folder(self._stage)))
        try:
            for path in folder.iterdir():
                os.link(path, links / path.name)
        except FileNotFoundError:
            shutil.rmtree(links)
            return None
        return links

    def _send(self) -> None:
        while True:
            with self._changing:
                if self._over or self._waiting is None:
                    self._sender = None
                    break
                (name, linked), self._waiting = self._waiting, None
            try:
                store.publish(name, source=linked)
                _drop_older(name)
            except (StoreError, UserError):
                # Only time is at stake, should this host die before the next one is sent.
                logger.warning("a resume state was not sent", exc_info=True)
            finally:
                shutil.rmtree(linked)
        if self._over:
            self._clear()

    def _clear(self) -> None:
        if self._waiting is not None:
            shutil.rmtree(self._waiting[1])
            self._waiting = None
        try:
            forget(self._stage)
        except (StoreError, UserError):
            logger.warning("resume states are left to housekeeping", exc_info=True)


def forget(stage: Stage) -> None:
    """Take a stage's states out of the bucket. Raises StoreError or UserError."""
    if stage.kind == "train":
        store.remove(_states_of(stage))


def bring(resume: Path) -> None:
    """Have the newest state in the resume folder, where this host has no newer one of its own.

    Raises StoreError where another try may help. A state that is gone or damaged is none: the
    training begins anew then.
    """
    if not store.is_remote():
        return
    # <stage>/resume/<place> as <stage>/states/<place>
    place = store.relative_of(resume.parent.with_name(FOLDER) / resume.name)
    for _ in range(_TRIES):
        states = {step: name for name in store.folders(place) if (step := _step(name)) is not None}
        newest = max(states, default=0)
        if newest <= max(map(_step_here, resume.glob("step-*")), default=0):
            return
        try:
            folder = store.fetch(states[newest])
        except UserError:
            logger.warning("a resume state is not to be had", exc_info=True)
            continue
        part = resume / f"step-{newest}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for path in folder.iterdir():
            os.link(path, part / path.name)
        part.rename(resume / f"step-{newest}")
        logger.info("goes on from a state of another host", extra={"step": newest})
        return


def _states_of(stage: Stage) -> str:
    return store.relative_of(files.stage_folder(stage) / FOLDER)


def _step(name: str) -> int | None:
    found = _NAME.fullmatch(name.rpartition("/")[2])
    return None if found is None else int(found[1])


def _step_here(folder: Path) -> int:
    number = folder.name.removeprefix("step-")
    return int(number) if number.isdecimal() else 0  # a part is none


def _drop_older(name: str) -> None:
    """Of the states beside this one, those that are of earlier steps."""
    step = _step(name)
    for other in store.folders(name.rpartition("/")[0]):
        found = _step(other)
        if found is not None and step is not None and found < step:
            store.remove(other)

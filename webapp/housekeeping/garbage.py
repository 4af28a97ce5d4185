"""Garbage collection of the file store: mark what rows refer to, sweep what nothing refers to.

Swept are whole entries of folders that are known here (``STORES``); what lies elsewhere in the
store is nobody's garbage. An entry goes when every round found it unreferenced for the grace time:
who writes a file first and its row after has that long. Removal happens under the lock under which
folders are registered by their content hash, and looks once more, so that a checkpoint that comes
back in the very moment keeps its files. What is removed is renamed first: nobody sees half of it.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath

from django.conf import settings
from django.db import transaction
from django.db.models import TextField
from django.db.models.functions import Cast
from django.utils import timezone

from webapp.benchmarks.models import Benchmark, Contest, PromptSet, RatingPopulation
from webapp.checkpoints.models import LIVE_UPLOADS, Checkpoint, Upload
from webapp.core import store
from webapp.core.locks import lock_store
from webapp.housekeeping.models import Unreferenced
from webapp.leaderboard.models import Report
from webapp.runs.models import Run

TRASH = ".trash"
NESTED = frozenset({"reports"})  # a folder per evaluation
_CHATS = re.compile(r"chats/[^/\"\\]+")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Garbage:
    """An entry that nothing refers to, and what it takes."""

    path: str
    size_bytes: int


def _paths(values: Iterable[str]) -> set[str]:
    """The entries that these paths of the store lie in."""
    split = (PurePosixPath(value).parts for value in values if value)
    return {"/".join(parts[: 2 + (parts[0] in NESTED)]) for parts in split}


def _checkpoints() -> set[str]:
    return _paths(Checkpoint.objects.exclude(path="").values_list("path", flat=True))


def _uploads() -> set[str]:
    live = Upload.objects.filter(state__in=LIVE_UPLOADS)
    return {f"uploads/{pk.hex}" for pk in live.values_list("pk", flat=True)}


def _benchmarks() -> set[str]:
    hashes = Benchmark.objects.values_list("content_hash", flat=True)
    return {f"benchmarks/{digest}.jsonl" for digest in hashes}


def _runs() -> set[str]:
    return {f"runs/{pk}" for pk in Run.objects.values_list("pk", flat=True)}


def _chats() -> set[str]:
    """Files of chats that recipes name by their path."""
    configs = Run.objects.annotate(text=Cast("config", TextField())).filter(text__contains="chats/")
    return {
        path for text in configs.values_list("text", flat=True) for path in _CHATS.findall(text)
    }


# Folder of the store → what in it is referred to. A file or folder directly below is one entry,
# or, of those in NESTED, one below that.
STORES: Mapping[str, Callable[[], set[str]]] = {
    "checkpoints": _checkpoints,
    "uploads": _uploads,
    "prompts": lambda: _paths(PromptSet.objects.values_list("path", flat=True)),
    "benchmarks": _benchmarks,
    "contests": lambda: _paths(Contest.objects.values_list("path", flat=True)),
    "populations": lambda: _paths(RatingPopulation.objects.values_list("path", flat=True)),
    "runs": _runs,
    "chats": _chats,
    "reports": lambda: _paths(Report.objects.values_list("path", flat=True)),
}


def collect(
    *, grace: timedelta | None = None, now: datetime | None = None, dry_run: bool = False
) -> list[Garbage]:
    """One round: what was found unreferenced for ``grace`` is removed and returned.

    With ``dry_run`` nothing is removed or remembered, and everything unreferenced is returned,
    however fresh.
    """
    now = now or timezone.now()
    grace = grace if grace is not None else timedelta(hours=settings.RETORT_GARBAGE_HOURS)
    found = set(unreferenced())
    if dry_run:
        return [Garbage(path, size_of(place(path))) for path in sorted(found)]
    _empty_trash()
    Unreferenced.objects.exclude(path__in=found).delete()
    Unreferenced.objects.bulk_create(
        [Unreferenced(path=path, since=now) for path in found], ignore_conflicts=True
    )
    due = Unreferenced.objects.filter(since__lte=now - grace).values_list("path", flat=True)
    return sweep(due)


def unreferenced() -> Iterator[str]:
    """The entries of the known folders that no row refers to."""
    for folder, referenced in STORES.items():
        # Listed first: what is written and referred to meanwhile is then in both.
        there = sorted(_entries(folder))
        if there:
            known = referenced()
            yield from (path for path in there if path not in known)


def sweep(paths: Iterable[str]) -> list[Garbage]:
    """Remove those of the entries that nothing refers to at this moment, and say which."""
    removed = []
    by_folder: dict[str, list[str]] = {}
    for path in paths:
        by_folder.setdefault(path.partition("/")[0], []).append(path)
    for folder, group in by_folder.items():
        doomed = []
        with transaction.atomic():
            lock_store()
            known = STORES[folder]()
            for path in group:
                at = place(path)
                if path in known:
                    continue
                # Under the lock, too: who registers the same contents publishes them under it. This
                # host may have no copy of what the bucket holds.
                store.remove(path)
                if os.path.lexists(at):
                    doomed.append((path, _renamed(at)))
            Unreferenced.objects.filter(path__in=group).delete()
        for path, trash in doomed:
            removed.append(Garbage(path, size_of(trash)))
            remove(trash)
    return removed


def sweep_after_commit(*paths: str) -> None:
    """Remove what the present transaction's deletions leave unreferenced, once it is committed."""
    wanted = [path for path in paths if path]
    transaction.on_commit(lambda: sweep(wanted))


def size_of(at: Path) -> int:
    """Bytes of a file, or of all files below a folder; what goes away meanwhile counts nothing."""
    try:
        if not at.is_dir() or at.is_symlink():
            return at.lstat().st_size
        return sum(size_of(Path(entry.path)) for entry in os.scandir(at))
    except FileNotFoundError:
        return 0


def _entries(folder: str) -> Iterator[str]:
    for entry in _listed(folder):
        if folder in NESTED and entry.is_dir(follow_symlinks=False):
            yield from (f"{folder}/{entry.name}/{inner.name}" for inner in os.scandir(entry.path))
        else:
            yield f"{folder}/{entry.name}"


def _listed(folder: str) -> Iterator[os.DirEntry[str]]:
    if place(folder).is_dir():
        yield from os.scandir(place(folder))


def place(path: str) -> Path:
    """Where an entry of the store lies."""
    return Path(settings.MEDIA_ROOT) / path


def _renamed(at: Path) -> Path:
    """Out of sight in one step; on the same disk."""
    trash = place(TRASH)
    trash.mkdir(parents=True, exist_ok=True)
    return at.rename(trash / f"{at.name}.{uuid.uuid4().hex}")


def _empty_trash() -> None:
    """What a process that died left of a removal."""
    trash = place(TRASH)
    if trash.is_dir():
        for entry in os.scandir(trash):
            remove(Path(entry.path))


def remove(at: Path) -> None:
    """Remove a file or a folder with all that is in it; what cannot be removed is logged."""
    try:
        if at.is_dir() and not at.is_symlink():
            shutil.rmtree(at)
        else:
            at.unlink(missing_ok=True)
    except OSError:  # the next round tries again
        logger.warning("garbage could not be removed", exc_info=True, extra={"place": str(at)})

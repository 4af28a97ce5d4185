"""Garbage collection of the file store: mark what rows refer to, sweep what nothing refers to.

Swept are whole entries of folders that are known here (``STORES``); what lies elsewhere in the
store is nobody's garbage. An entry goes when every round found it unreferenced for the grace time:
who writes a file first and its row after has that long. Removal happens under the lock under which
folders are registered by their content hash, and looks once more, so that a checkpoint that comes
back in the very moment keeps its files. What is removed is renamed first: nobody sees half of it.

Where the files are in a bucket, a round looks at the bucket, whoever put them there, and at this
host's copies and working files, which are remembered as this host's: what others do not have is no
sign that somebody refers to it.
"""

from __future__ import annotations

import itertools
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
from webapp.runs.models import KeptChats, Run

TRASH = ".trash"
NESTED = frozenset({"reports"})  # a folder per evaluation
IN_BUCKET = ""  # as the host of what is no host's own
BATCH = 50  # removed under the lock at a time
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
    """Files of chats that recipes name by their path, or that somebody uploaded just now."""
    since = timezone.now() - timedelta(hours=settings.RETORT_GARBAGE_HOURS)
    fresh = KeptChats.objects.filter(kept_at__gt=since).values_list("path", flat=True)
    configs = Run.objects.annotate(text=Cast("config", TextField())).filter(text__contains="chats/")
    named = {
        path for text in configs.values_list("text", flat=True) for path in _CHATS.findall(text)
    }
    return named | set(fresh)


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
    here = store.place_name()
    found = {here: set(unreferenced())}
    if store.is_remote():
        found[IN_BUCKET] = set(unreferenced(_stored))
    if dry_run:
        return [
            Garbage(path, _stored_bytes(path) or size_of(place(path)))
            for path in sorted(set[str]().union(*found.values()))
        ]
    _empty_trash()
    for host, paths in found.items():
        remembered = Unreferenced.objects.filter(host=host)
        remembered.exclude(path__in=paths).delete()
        remembered.bulk_create(
            [Unreferenced(path=path, host=host, since=now) for path in paths],
            ignore_conflicts=True,
        )
    due = Unreferenced.objects.filter(host__in=found, since__lte=now - grace)
    return sweep(set(due.values_list("path", flat=True)))


def unreferenced(listed: Callable[[str], Iterable[str]] | None = None) -> Iterator[str]:
    """The entries of the known folders, as ``listed`` (this host's), that no row refers to."""
    for folder, referenced in STORES.items():
        # Listed first: what is written and referred to meanwhile is then in both.
        there = sorted(set((listed or _entries)(folder)))
        if there:
            known = referenced()
            yield from (path for path in there if path not in known)


def sweep(paths: Iterable[str]) -> list[Garbage]:
    """Remove those of the entries that nothing refers to at this moment, and say which."""
    removed = []
    places = {IN_BUCKET, store.place_name()}
    for folder, group in _batches(paths):
        doomed = []
        with transaction.atomic():
            lock_store()
            known = STORES[folder]()
            for path in group:
                at = place(path)
                if path in known:
                    continue
                stored = _stored_bytes(path)
                # Under the lock, too: who registers the same contents publishes them under it. This
                # host may have no copy of what the bucket holds.
                store.remove(path)
                trash = _renamed(at) if os.path.lexists(at) else None
                doomed.append((path, stored, trash))
            KeptChats.objects.filter(path__in=[path for path, _, _ in doomed]).delete()
            Unreferenced.objects.filter(path__in=group, host__in=places).delete()
        for path, stored, trash in doomed:
            if trash is not None:
                removed.append(Garbage(path, stored or size_of(trash)))
                remove(trash)
            elif stored:
                removed.append(Garbage(path, stored))
    return removed


def _batches(paths: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """(folder, some of its entries): the lock is not held for a request per piece of garbage."""
    for folder, group in itertools.groupby(sorted(paths), lambda path: path.partition("/")[0]):
        entries = list(group)
        for start in range(0, len(entries), BATCH):
            yield folder, entries[start : start + BATCH]


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


def _stored_bytes(path: str) -> int:
    return store.size_of(path) if store.is_remote() else 0


def _stored(folder: str) -> Iterator[str]:
    """What the bucket has of a folder's entries."""
    return store.entries(folder, depth=1 + (folder in NESTED))


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

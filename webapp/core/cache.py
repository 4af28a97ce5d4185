"""A host's copies of what is in the bucket: by content, bounded, and never half there.

Each copy lies once under its SHA-256 in ``.cache`` and is hard-linked to the names under which it
is asked for. Where the copies take more than their share, those that were used least recently go,
with their names; what a living process has taken into use stays (it keeps a lock on a file that
lists it, which the kernel releases when the process dies).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

FRESH_SECONDS = 60.0  # between asking where a file lies and opening it
STALE_SECONDS = 86_400.0  # a part of which nothing was heard for so long is a dead process's


class Cache:
    """The copies below one root. Several processes share it; ``most_bytes`` 0: no bound."""

    def __init__(self, root: Path, most_bytes: int) -> None:
        self._root = root
        self._most = most_bytes
        self._objects = root / ".cache" / "objects"
        self._pins = root / ".cache" / "pins"
        self._pin: int | None = None
        self._pinned: set[str] = set()

    # --- in use

    def use(self, relative: str) -> None:
        """Note that a file is wanted now; its copy stays for a while, or until ``release``."""
        with self._lock(fcntl.LOCK_SH):
            if self._pin is not None and relative not in self._pinned:
                self._pinned.add(relative)
                os.write(self._pin, f"{relative}\n".encode())
            with contextlib.suppress(OSError):
                os.utime(self._root / relative)  # the copy's, too: it is the same file

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Keep everything that is taken into use meanwhile."""
        self._pins.mkdir(parents=True, exist_ok=True)
        path = self._pins / uuid.uuid4().hex
        self._pin = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        fcntl.flock(self._pin, fcntl.LOCK_EX)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            os.close(self._pin)
            self._pin, self._pinned = None, set()

    # --- taking in

    @contextlib.contextmanager
    def incoming(self) -> Iterator[Path]:
        """Where a download is written; gone afterwards unless it was kept."""
        self._objects.mkdir(parents=True, exist_ok=True)
        part = self._objects / f".part-{uuid.uuid4().hex}"
        try:
            yield part
        finally:
            part.unlink(missing_ok=True)

    def keep(self, part: Path, digest: str, relative: str) -> None:
        """Take a whole file in under its hash and name, and make room."""
        with part.open("rb") as file:
            os.fsync(file.fileno())
        with self._lock(fcntl.LOCK_EX):
            part.replace(self._objects / digest)
            self._name(digest, relative)
            self._make_room()

    def link(self, digest: str, relative: str) -> bool:
        """Give a copy that is here one more name; False where there is none."""
        with self._lock(fcntl.LOCK_EX):
            if not (self._objects / digest).exists():
                return False
            self._name(digest, relative)
            return True

    def adopt(self, relative: str, digest: str) -> None:
        """Count a file of this host, which is in the bucket by now, among the copies."""
        with self._lock(fcntl.LOCK_EX):
            if not (self._objects / digest).exists():
                os.link(self._root / relative, self._objects / digest)
            self._note(digest, relative)
            self._make_room()

    def size_bytes(self) -> int:
        """What the copies take."""
        return sum(path.stat().st_size for path in self._copies())

    def _copies(self) -> list[Path]:
        return [path for path in self._objects.glob("*") if "." not in path.name]

    def _name(self, digest: str, relative: str) -> None:
        target = self._root / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        os.utime(self._objects / digest)
        part = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        os.link(self._objects / digest, part)
        part.replace(target)
        self._note(digest, relative)

    def _note(self, digest: str, relative: str) -> None:
        names = self._objects / f"{digest}.names"
        if not names.exists() or relative not in names.read_text().splitlines():
            with names.open("a") as file:
                file.write(f"{relative}\n")

    # --- room

    def _make_room(self) -> None:
        """Let copies go that nobody uses, the least recently used first."""
        if not self._most:
            return
        copies = [(path.stat(), path) for path in self._copies()]
        total = sum(stat.st_size for stat, _ in copies)
        if total <= self._most:
            return
        used, now = self._in_use(), time.time()
        for stat, path in sorted(copies, key=lambda each: each[0].st_mtime):
            if total <= self._most or now - stat.st_mtime < FRESH_SECONDS:
                break
            names = path.with_name(f"{path.name}.names")
            known = names.read_text().splitlines() if names.exists() else []
            if used.isdisjoint(known):
                self._forget(path, known)
                names.unlink(missing_ok=True)
                total -= stat.st_size
        for part in self._objects.glob(".part-*"):
            with contextlib.suppress(FileNotFoundError):
                if now - part.stat().st_mtime > STALE_SECONDS:
                    part.unlink()

    def _forget(self, copy: Path, names: list[str]) -> None:
        for name in names:
            path = self._root / name
            with contextlib.suppress(FileNotFoundError):
                if path.samefile(copy):  # not what was put there since
                    path.unlink()
        copy.unlink()

    def _in_use(self) -> set[str]:
        """What living processes have taken into use; what dead ones left is cleared away."""
        used = set(self._pinned)
        for path in self._pins.glob("*"):
            with contextlib.suppress(FileNotFoundError), path.open("r+") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    used.update(path.read_text().splitlines())
                else:
                    path.unlink()
        return used

    @contextlib.contextmanager
    def _lock(self, how: int) -> Iterator[None]:
        self._objects.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._objects.parent / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, how)
            yield
        finally:
            os.close(descriptor)

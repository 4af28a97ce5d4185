"""Memory and process limits for a whole sandbox, where the kernel's control groups are writable.

Version 1 (a hierarchy for each controller) and version 2 are both read. Groups are kept and used
again, because making one costs more than a run's other set-up.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
_SLACK_BYTES = 16 << 20  # bubblewrap itself, page tables, the kernel's own structures
_SLACK_TASKS = 8
_REMOVE_TRIES = 50


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where a version keeps its groups, and the names of its files."""

    memory: Path
    pids: Path
    memory_limit: str
    events: str


def _own_paths() -> dict[str, str]:
    """Controller → path of this process's group; version 2's is under the empty name."""
    found: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            for controller in controllers.split(","):
                found[controller] = path
    return found


def find_layout(root: Path = ROOT) -> _Layout | None:
    """The writable hierarchy, or None where there is none."""
    own = _own_paths()
    v1 = []
    for controller in ("memory", "pids"):
        base = root / controller
        inner = base / own.get(controller, "/").lstrip("/")
        v1.append(inner if inner.is_dir() else base)
    if all((base / "tasks").is_file() and os.access(base, os.W_OK) for base in v1):
        return _Layout(v1[0], v1[1], "memory.limit_in_bytes", "memory.oom_control")
    enabled = root / "cgroup.subtree_control"
    if enabled.is_file() and os.access(root, os.W_OK):
        with contextlib.suppress(OSError):
            enabled.write_text("+memory +pids")
        if {"memory", "pids"} <= set(enabled.read_text().split()):
            return _Layout(root, root, "memory.max", "memory.events")
    return None


class Group:
    """One control group in each hierarchy, for one run at a time."""

    def __init__(self, layout: _Layout, name: str) -> None:
        self._layout = layout
        self._memory = layout.memory / name
        self._pids = layout.pids / name
        self.folders = list(dict.fromkeys((self._memory, self._pids)))
        for folder in self.folders:
            folder.mkdir(exist_ok=True)

    @property
    def procs(self) -> list[str]:
        """The files that a process writes 0 into to join."""
        return [str(folder / "cgroup.procs") for folder in self.folders]

    def limit(self, memory_bytes: int, tasks: int) -> int:
        """Set the limits; returns how often the group ran out of memory until now."""
        limit_file = self._memory / self._layout.memory_limit
        limit_file.write_text(str(memory_bytes + _SLACK_BYTES))
        swap = self._memory / "memory.swap.max"
        if swap.exists():
            swap.write_text("0")
        (self._pids / "pids.max").write_text(str(tasks + _SLACK_TASKS))
        return self.kills()

    def kills(self) -> int:
        """How many processes the kernel has ended for want of memory."""
        for line in (self._memory / self._layout.events).read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
        return 0

    def remove(self) -> None:
        """Remove it; a process that is still being reaped is waited for briefly."""
        for folder in self.folders:
            for _ in range(_REMOVE_TRIES):
                try:
                    folder.rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.01)


class Groups:
    """The groups of this process, handed out one to a run. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[Group] = []
        self._numbers = itertools.count()
        self._layout = find_layout()
        self._pid = os.getpid()
        if self._layout is not None:
            _remove_orphans(self._layout)
            try:
                self._idle.append(self._make())
            except OSError:  # looked writable, but is not: a read-only mount of a container
                self._layout = None
        atexit.register(self.close)

    @property
    def available(self) -> bool:
        """Whether groups can be made."""
        return self._layout is not None

    def _make(self) -> Group:
        assert self._layout is not None
        return Group(self._layout, f"retort-judge-{self._pid}-{next(self._numbers)}")

    def take(self) -> Group | None:
        """A group of one's own, or None where there are none."""
        if self._layout is None:
            return None
        with self._lock:
            return self._idle.pop() if self._idle else self._make()

    def give_back(self, group: Group) -> None:
        """Let another run use the group."""
        with self._lock:
            self._idle.append(group)

    def close(self) -> None:
        """Remove the groups that are not in use."""
        if os.getpid() != self._pid:
            return  # a forked child leaves its parent's groups alone
        with self._lock:
            for group in self._idle:
                group.remove()
            self._idle.clear()


def _remove_orphans(layout: _Layout) -> None:
    """Remove what a judge that was killed left behind."""
    for base in {layout.memory, layout.pids}:
        for folder in base.glob("retort-judge-*-*"):
            pid = folder.name.split("-")[2]
            if not Path("/proc", pid).exists():
                with contextlib.suppress(OSError):  # another judge may be removing it too
                    folder.rmdir()

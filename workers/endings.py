"""Why a child ended: in a sentence that names the remedy, and whether another try may help."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from pathlib import Path

# What frameworks say when memory runs out. Each as its makers print it.
_DEVICE = re.compile(
    r"CUDA out of memory|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED|"
    r"No available memory for the cache blocks|larger than the available KV cache memory"
)
_HOST = re.compile(
    r"DefaultCPUAllocator: (?:can't allocate memory|not enough memory)|"
    r"not enough memory: you tried|"
    r"std::bad_alloc|\bMemoryError\b|Cannot allocate memory|\[Errno 12\]"
)
_DISK = re.compile(r"No space left on device|Disk quota exceeded|\[Errno (?:28|122)\]")
_REMEDIES = {
    "train": "lower the recipe's batch or sequence length, turn gradient checkpointing on, or give "
    "the stage more devices",
    "generate": "lower the token limit or the engine's gpu_memory_share, or give the stage more "
    "devices",
    "evaluate": "lower the token limit or the engine's gpu_memory_share, or give the stage more "
    "devices",
    "filter": "lower RETORT_STAGE_JOBS, or use a host with more memory",
    "grade": "lower RETORT_STAGE_JOBS, or use a host with more memory",
}
_COUNTERS = (
    ("/proc/vmstat", "oom_kill"),
    ("/sys/fs/cgroup/memory.events", "oom_kill"),
    ("/sys/fs/cgroup/memory/memory.oom_control", "oom_kill"),
)


@dataclass(frozen=True, slots=True)
class Ending:
    """A sentence for people, whether to try again, and what the ledger calls the cause."""

    sentence: str
    transient: bool
    cause: str = ""  # blank: transient or permanent, as it is


OUT_OF_MEMORY = "out_of_memory"
LIMITS = "limits"


def oom_kills() -> dict[str, int]:
    """How often the kernel has killed for want of memory so far, by each counter there is."""
    counts = {}
    for path, name in _COUNTERS:
        try:
            lines = Path(path).read_text().splitlines()
        except OSError:
            continue  # another kernel, another version of control groups
        for line in lines:
            key, _, value = line.partition(" ")
            if key == name and value.strip().isdigit():
                counts[path] = int(value)
    return counts


def out_of_something(kind: str, text: str) -> Ending | None:
    """Recognise memory, or a disk, that did not suffice by what was said of it.

    A device's memory is ours alone, so the same would happen again; the host's memory and disk are
    shared with others, so another try may find room.
    """
    remedy = _REMEDIES.get(kind, "use a host with more memory")
    if _DEVICE.search(text):
        return Ending(
            f"The device's memory did not suffice (out of memory): {remedy}.", False, OUT_OF_MEMORY
        )
    if _HOST.search(text):
        return Ending(
            f"The host's memory did not suffice (out of memory): {remedy}.", True, OUT_OF_MEMORY
        )
    if _DISK.search(text):
        return Ending(
            "The disk of the runs' files is full (no space left on device): make room on it, then "
            "retry the run.",
            transient=True,
        )
    return None


def of_exit(kind: str, code: int, log_tail: str, *, oom_killed: bool) -> Ending:
    """Say how a child ended that said nothing itself. ``code`` is negative for a signal."""
    if code == -signal.SIGKILL and oom_killed:
        remedy = _REMEDIES.get(kind, "use a host with more memory")
        return Ending(
            f"The stage's process was killed by SIGKILL when the host ran out of memory: {remedy}.",
            transient=True,
            cause=OUT_OF_MEMORY,
        )
    if (memory := out_of_something(kind, log_tail)) is not None:
        return memory
    if code >= 0:
        return Ending(f"The stage's process ended early with exit code {code}; see the log.", False)
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = {
        signal.SIGKILL: " (by somebody: the kernel's counters show no lack of memory)",
        signal.SIGSEGV: " (a crash inside a native library)",
    }.get(-code, "")  # type: ignore[call-overload]
    return Ending(f"The stage's process was killed by {name}{hint}; see the log.", True)

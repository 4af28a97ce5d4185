"""What a program may use, and what is known of its run."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

MIB = 1 << 20
DEFAULT_CPU_SECONDS = 2.0  # PROTOCOLS §4
DEFAULT_MEMORY_BYTES = 256 * MIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one run. CPU time decides; the two wall limits only catch what waits.

    ``idle_seconds`` counts the time in which the program used under 1 % of a CPU, so that a loaded
    machine, which gives less but never nothing, does not change a verdict; of two programs that
    talk with each other it counts the time in which neither did. ``wall_seconds`` is the far end.
    """

    cpu_seconds: float = DEFAULT_CPU_SECONDS
    memory_bytes: int = DEFAULT_MEMORY_BYTES
    idle_seconds: float | None = None  # None: max(cpu_seconds, 1 s) + 1 s
    wall_seconds: float | None = None  # None: 20 times the CPU time and 10 s
    output_bytes: int = 8 * MIB  # of standard output, and of every file
    tmp_bytes: int = 64 * MIB  # of the private /tmp
    threads: int = 64
    open_files: int = 64
    processes_allowed: bool = (
        False  # compilers start others; a judged program may only have threads
    )

    @property
    def idle_limit_seconds(self) -> float:
        """Longest time without CPU use."""
        if self.idle_seconds is not None:
            return self.idle_seconds
        return max(self.cpu_seconds, 1.0) + 1.0

    @property
    def wall_limit_seconds(self) -> float:
        """Longest time at all."""
        return 20 * self.cpu_seconds + 10 if self.wall_seconds is None else self.wall_seconds


class End(StrEnum):
    """How a run ended."""

    EXIT = "exit"  # by itself, with an exit code
    SIGNAL = "signal"
    CPU = "cpu"  # its CPU time was used up
    IDLE = "idle"  # it waited too long
    MEMORY = "memory"
    OUTPUT = "output"


@dataclass(frozen=True, slots=True)
class RunResult:
    """One run. ``stderr`` is the last few thousand bytes; ``memory_bytes`` the largest resident
    set of a process.
    """

    end: End
    exit_code: int  # of End.EXIT; else 128 + the signal, as shells say
    cpu_seconds: float
    wall_seconds: float
    memory_bytes: int
    stdout: bytes
    stderr: bytes
    ended_at: float  # seconds of the monotonic clock, to tell which of two partners ended first

    @property
    def succeeded(self) -> bool:
        """Whether it ended by itself with exit code 0."""
        return self.end is End.EXIT and self.exit_code == 0

"""How much CPU time a process tree has taken, read from /proc.

That is of a process, of its living descendants, and of those that were reaped. What a descendant
took that nobody waited for is missing, so the figure is a lower bound.
"""

from __future__ import annotations

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_UTIME, _CSTIME = 11, 14  # of /proc/PID/stat after the name: utime, stime, cutime, cstime


def of(pid: int) -> float:
    """CPU time of a process, its reaped children and its living descendants; 0 when it is gone.

    A process that ended but was not reaped still tells.
    """
    ticks, waiting, seen = 0, [pid], set[int]()
    while waiting:
        each = waiting.pop()
        if each in seen:
            continue
        seen.add(each)
        try:
            stat = Path(f"/proc/{each}/stat").read_bytes().rpartition(b")")[2].split()
            ticks += sum(map(int, stat[_UTIME : _CSTIME + 1]))
            for thread in Path(f"/proc/{each}/task").iterdir():
                waiting += map(int, (thread / "children").read_bytes().split())
        except OSError:
            continue  # it ended meanwhile, or a kernel that does not list children
    return ticks / _TICKS

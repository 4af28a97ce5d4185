"""What a result was measured on, and where results are kept."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
WORK = ROOT / "var" / "bench"


@dataclass(frozen=True, slots=True)
class Cost:
    """What a process and all its children took. ``peak_mib`` is its largest process's memory."""

    wall_seconds: float
    cpu_seconds: float
    peak_mib: float


def measured(command: Sequence[object], *, log: Path, **options: Any) -> Cost:
    """Run a command to its end; raises CalledProcessError, its output being in ``log``."""
    started = time.monotonic()
    words = [str(word) for word in command]
    with log.open("w") as file:
        process = subprocess.Popen(words, cwd=ROOT, stdout=file, stderr=file, **options)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words, log.read_text()[-2000:])
    return Cost(
        wall_seconds=round(time.monotonic() - started, 2),
        cpu_seconds=round(usage.ru_utime + usage.ru_stime, 2),
        peak_mib=round(usage.ru_maxrss / 1024, 1),
    )


def added(costs: Sequence[Cost]) -> Cost:
    """Processes run one after the other."""
    return Cost(
        wall_seconds=round(sum(cost.wall_seconds for cost in costs), 2),
        cpu_seconds=round(sum(cost.cpu_seconds for cost in costs), 2),
        peak_mib=max(cost.peak_mib for cost in costs),
    )


def write(name: str, result: dict[str, Any], *, packages: Sequence[str]) -> None:
    """Keep a result with the machine and the versions that it was measured with."""
    machine = {
        "cpus": os.cpu_count(),
        "cpu": _cpu(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_before": round(os.getloadavg()[2], 2),  # of 15 minutes: others' work
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    versions = {package: importlib.metadata.version(package) for package in packages}
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    whole = {"machine": machine, "versions": versions, **result}
    text = json.dumps(whole, indent=2, default=asdict, ensure_ascii=False)
    path.write_text(text + "\n")


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()

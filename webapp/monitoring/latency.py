"""How long answers took: a histogram that all web processes of this host fill together.

Each process counts in a file of its own under var/metrics; a scrape of any of them adds up all.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.multiprocess import MultiProcessCollector

FOLDER = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])  # the settings name it
FOLDER.mkdir(parents=True, exist_ok=True)

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_OF_PROCESS = re.compile(r"_(\d+)\.db$")

_SECONDS = Histogram(
    "retort_http_request_duration_seconds",
    "Time to answer a request, by view, method and class of status.",
    ["view", "method", "status"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    registry=None,
)


def observe(view: str, method: str, status: int, seconds: float) -> None:
    """Count one answer. The labels have few values: strangers choose neither view nor method."""
    method = method if method in _METHODS else "other"
    _SECONDS.labels(view, method, f"{status // 100}xx").observe(seconds)


def register(registry: CollectorRegistry) -> None:
    """Have ``registry`` tell the sums of all processes."""
    MultiProcessCollector(registry, path=str(FOLDER))  # type: ignore[no-untyped-call]


def forget_the_dead() -> None:
    """Take away the files of processes that are gone; counters then begin anew, as they may."""
    for path in FOLDER.glob("*.db"):
        found = _OF_PROCESS.search(path.name)
        if found is not None and not Path(f"/proc/{found[1]}").exists():
            path.unlink(missing_ok=True)

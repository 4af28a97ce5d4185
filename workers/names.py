"""What a worker is called."""

from __future__ import annotations

import os

from workers import gpus


def worker_name() -> str:
    """Host and process id."""
    return f"{gpus.host_name()}/{os.getpid()}"

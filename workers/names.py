"""What a worker is called."""

from __future__ import annotations

import os

from webapp.core.hosts import host_name


def worker_name() -> str:
    """Host and process id."""
    return f"{host_name()}/{os.getpid()}"

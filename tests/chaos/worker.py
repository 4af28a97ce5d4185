"""A worker for the storm: fake devices, a scripted child, and a wall clock that can be stepped."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

control = Path(os.environ["RETORT_VAR"]) / "control"
real_time = time.time


def stepped_time() -> float:
    """The machine's time plus the step that the storm has written down."""
    try:
        return real_time() + float((control / "clock").read_text() or 0)
    except (OSError, ValueError):
        return real_time()


time.time = stepped_time

from webapp.core.hosts import host_name  # noqa: E402
from workers import app, gpus, supervisor  # noqa: E402

host = host_name()
gpus.inventory = lambda: [gpus.Sample(f"{host}-{index}", "Fake") for index in range(2)]
real_command = supervisor.child_command


def child_command(stage, spec):  # type: ignore[no-untyped-def]
    """The scripted child draws; real ones grade."""
    if stage.kind != "evaluate":
        return real_command(stage, spec)
    child = Path(__file__).resolve().parents[1] / "workers" / "child.py"
    return [sys.executable, str(child), "storm", str(spec)]


supervisor.child_command = child_command
app.main()

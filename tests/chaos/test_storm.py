"""A short storm: every kind of fault over a few runs (`make chaos` is the long one)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.chaos.faults import FAULTS

ROOT = Path(__file__).resolve().parents[2]


def test_nothing_is_lost_doubled_orphaned_or_left_open() -> None:
    count = len(FAULTS)
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos.storm", "--faults", str(count), "--runs", "3",
         "--pause", "1", "--patience", "120"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=400,
        env={k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG")},
    )  # fmt: skip
    assert done.stdout, done.stderr[-4000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 0, told
    assert told["wrong"] == told["orphans"] == []
    assert told["held_devices"] == 0
    kinds = count if os.geteuid() == 0 else count - 1  # a small disk has to be mounted
    assert len(told["faults"]) >= kinds - 1
    assert sum(told["faults"].values()) == count
    assert sum(told["runs"].values()) >= 3

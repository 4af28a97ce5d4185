"""Asking a benchmark what it does measures nothing: it says it, at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results"
# A file with an underscore is run by a benchmark, not by a person.
RUN = [
    path.stem
    for path in sorted((ROOT / "bench").glob("*.py"))
    if "__main__" in path.read_text() and not path.stem.startswith("_")
]


@pytest.mark.parametrize("name", RUN)
def test_help_explains_and_runs_nothing(name: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in RESULTS.iterdir()}
    done = subprocess.run(
        [sys.executable, "-m", f"bench.{name}", "--help"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")
    assert len(done.stdout.split()) > 20, "it says what is measured, and how"
    assert before == {path: path.stat().st_mtime_ns for path in RESULTS.iterdir()}

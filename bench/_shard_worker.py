"""A worker whose children do nothing: `_shard_worker.py worker`, or `child SPEC` for its child."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def child(spec: Path) -> int:
    """Every shard is done at once, or after as many seconds as its work says."""
    from evaluator.child import Reporter, ShardRequest, serve

    class Nothing:
        def __init__(self, spec: dict[str, Any], report: Reporter) -> None:
            report.ready(name="nothing")

        def run(self, request: ShardRequest, report: Reporter) -> Mapping[str, Any]:
            time.sleep(request.work.get("seconds", 0))
            return {}

    return serve(spec, {"generate": Nothing})


def worker() -> None:
    """A real worker in everything else."""
    from workers import app, supervisor  # Django is set up by now

    spec = Path(os.environ["RETORT_VAR"]) / "spec.json"
    spec.write_text(json.dumps({"kind": "generate"}))
    command = [sys.executable, __file__, "child"]
    with (
        patch("webapp.runs.leases.write_spec", lambda stage, device: spec),
        patch.object(supervisor, "child_command", lambda stage, path: [*command, str(path)]),
    ):
        app.main()


if __name__ == "__main__":
    if sys.argv[1] == "child":
        sys.exit(child(Path(sys.argv[2])))
    worker()

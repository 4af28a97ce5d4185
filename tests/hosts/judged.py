"""Programs judged on a host that may read no table and shares no disk with anybody.

Alpha imports, queues and settles; beta's worker has the judge's database role, and gets contests,
completions and its own configuration through the bucket.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from tests.evaluator import programs
from tests.hosts.scene import Installation, ended
from tests.hosts.servers import PASSWORD, wait_for

JUDGE = "retort_judge"


def play(scene: Installation) -> dict[str, Any]:
    """Import programs as the web host does, see them judged, and tell what it can read then."""
    from django.core.management import call_command

    from evaluator.store import read_segment
    from webapp.benchmarks.models import Benchmark
    from webapp.core.models import User
    from webapp.runs import files, services
    from webapp.runs.management.commands.judge_role import make_role
    from webapp.runs.models import Stage

    assert scene.postgres is not None
    call_command("migrate", verbosity=0)
    make_role(JUDGE, PASSWORD)
    owner = User.objects.create_user("ada")
    with tempfile.TemporaryDirectory() as folder:
        bundles = [
            programs.write_json(Path(folder) / f"{name}.json", programs.bundle(name))
            for name in ("9001", "9002")
        ]
        call_command("import_contests", *map(str, bundles), "--problems", verbosity=0)
        run = services.import_completions(
            owner=owner, checkpoint_name="coder",
            benchmark=Benchmark.objects.get(name="codeforces"),
            path=programs.write_lines(Path(folder) / "rows.jsonl", programs.completions()),
        )  # fmt: skip
    scene.start("alpha", "tests/workers/worker.py", "", RETORT_QUEUES="cpu,upkeep")
    scene.start(
        "beta", "tests/workers/worker.py", "", RETORT_QUEUES="judge",
        DATABASE_URL=scene.postgres.url("beta", user=JUDGE),
    )  # fmt: skip
    wait_for(lambda: ended(run), f"{run}")
    stage = Stage.objects.get(run=run, kind="grade")
    told = {
        "state": run.state, "error": run.error, "queue": stage.queue,
        "hosts": sorted(
            {name.partition("/")[0] for name in stage.shards.values_list("worker", flat=True)}
        ),
        "verdicts": (run.evaluations.get().metrics or {}).get("verdicts"),
        "judged": [
            [row["problem_id"], row["sample"], (row.get("judged") or {}).get("verdict")]
            for path in files.accepted_segments(stage)
            for _, row in read_segment(files.segment_path(stage, path.name))
        ],
        "ended_early": [
            worker.args
            for group in scene.workers.values()
            for worker in group
            if worker.poll() is not None
        ],
    }  # fmt: skip
    scene.stop_workers()
    return told

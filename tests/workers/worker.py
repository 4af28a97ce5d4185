"""A real worker, `worker.py HOW`: its evaluate stages are done by child.py where HOW is given."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from workers import app

if sys.argv[1]:
    from webapp.runs.models import Stage
    from workers import supervisor

    real = supervisor.child_command

    def child_command(stage: Stage, spec: Path) -> list[str]:
        if stage.kind != "evaluate":
            return real(stage, spec)
        child = Path(__file__).resolve().parent / "child.py"
        return [sys.executable, str(child), sys.argv[1], str(spec)]

    supervisor.child_command = child_command

app.main()

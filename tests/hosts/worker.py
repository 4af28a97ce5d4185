"""A real worker whose generate stages have the scripted teacher; the other children are real."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from workers import (
    app,  # sets Django up
    supervisor,
)

real = supervisor.child_command


def child_command(stage: Any, spec: Path) -> list[str]:
    if stage.kind != "generate":
        return real(stage, spec)
    return [sys.executable, str(Path(__file__).with_name("teacher.py")), "stage", str(spec)]


supervisor.child_command = child_command
app.main()

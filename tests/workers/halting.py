"""A distiller's child that says where its resume state of step 6 is, and then says no more.

python tests/workers/halting.py stage SPEC.json
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from evaluator.child import Reporter

real = Reporter.saved


def saved(self: Reporter, folder: Path) -> None:
    real(self, folder)
    if folder.name == "step-6":
        signal.pause()


if __name__ == "__main__":
    from distiller.cli import main

    Reporter.saved = saved  # type: ignore[method-assign]
    sys.exit(main())

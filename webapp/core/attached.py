"""``python -m webapp.core.attached PARENT ARGUMENTS``: python, ended with its parent (a pid).

A terminal's process that is killed outright can end nothing any more; on Linux the kernel then
tells what it started to end. On other systems this only starts the command.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>; kept across exec


def main() -> None:
    """Become ``python ARGUMENTS``."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(sys.argv[1]):  # it was gone before the kernel was asked
            sys.exit(1)
    os.execv(sys.executable, [sys.executable, *sys.argv[2:]])  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    main()

"""What a child that reads somebody's checkpoint can see of this host: next to nothing.

Where bubblewrap works, the child gets namespaces of its own: the checkpoint's folder, the Python
environment and /usr, read-only; a private /tmp; no network and no other process. Where it does not
(no bubblewrap, or a container without user namespaces) the child has its limits only, and
:func:`confinement` says so.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from evaluator.sandbox.box import system_mounts

TMP_BYTES: Final = 256 << 20
_ROOT: Final = Path(__file__).resolve().parents[1]
_PACKAGES: Final = ("distiller", "evaluator")  # of the product, what the child imports
_TRIAL_SECONDS: Final = 30.0


def confined(command: list[str], folder: Path) -> list[str]:
    """The command line that runs ``command`` where of the host's own files only ``folder`` is seen.

    It is ``command`` itself where :func:`why_not` gives a reason.
    """
    return command if why_not() else [*_wall(folder), *command]


def confinement() -> str:
    """How a checkpoint is looked at on this host, for people."""
    if reason := why_not():
        return f"with limits of time and memory only: {reason}"
    return "in bubblewrap: its own folder, no network"


@functools.cache
def why_not() -> str:
    """Why children are not confined on this host, in one sentence; blank where they are."""
    if shutil.which("bwrap") is None:
        return "there is no bubblewrap; install the package bubblewrap."
    trial = [*_wall(_ROOT / _PACKAGES[0]), sys.executable, "-c", "import encodings, ssl, sqlite3"]
    try:
        done = subprocess.run(
            trial, stdin=subprocess.DEVNULL, capture_output=True, env={}, cwd="/",
            timeout=_TRIAL_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bubblewrap does not start here ({error})."
    if done.returncode:
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        return (
            f"bubblewrap does not work here ({' '.join(last)[:200]}); it needs unprivileged user "
            "namespaces."
        )
    return ""


def _wall(folder: Path) -> list[str]:
    arguments = [
        shutil.which("bwrap") or "bwrap",
        "--unshare-user", "--disable-userns", "--unshare-pid", "--unshare-ipc", "--unshare-uts",
        "--unshare-net", "--unshare-cgroup-try", "--hostname", "quarantine",
        "--die-with-parent", "--new-session", "--cap-drop", "ALL",
        *system_mounts(),
        "--dev", "/dev", "--remount-ro", "/dev",
        "--size", str(TMP_BYTES), "--tmpfs", "/tmp",  # noqa: S108 - the child's own
    ]  # fmt: skip
    for path in (*_environment(), folder.resolve()):
        arguments += ["--ro-bind", str(path), str(path)]
    if folder != folder.resolve():  # the child is told the name it has
        arguments += ["--ro-bind", str(folder.resolve()), str(folder)]
    return [*arguments, "--remount-ro", "/", "--chdir", "/tmp", "--"]  # noqa: S108


@functools.cache
def _environment() -> tuple[Path, ...]:
    """Python, its libraries and the product's two packages: nothing else of the checkout."""
    found = [Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parents[1]]
    found += [Path(each) for each in sys.path if each.endswith(("site-packages", "dist-packages"))]
    found = [path for path in found if path.is_dir() and not path.is_relative_to("/usr")]
    found += [_ROOT / name for name in _PACKAGES]
    kept: list[Path] = []
    for path in sorted(set(found)):  # what lies in another one is there with it
        if not any(path.is_relative_to(other) for other in kept):
            kept.append(path)
    return tuple(kept)

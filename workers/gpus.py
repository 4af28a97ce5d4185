"""Who holds which CUDA device. torch is never imported here: the driver's own tool is asked."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from django.conf import settings

logger = logging.getLogger(__name__)


@lru_cache(maxsize=1)
def devices() -> tuple[str, ...]:
    """Names of the devices that this process may use, as ``CUDA_VISIBLE_DEVICES`` takes them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return tuple(name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1"))
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    done = subprocess.run(
        [tool, "--query-gpu=uuid", "--format=csv,noheader"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        logger.warning("nvidia-smi failed; no device is used", extra={"said": done.stdout[:500]})
        return ()
    return tuple(done.stdout.split())


@contextlib.contextmanager
def hold() -> Iterator[str | None]:
    """Hold one device for as long as the context lasts; None where all are taken.

    The locks are the kernel's, so those of a killed worker are free again.
    """
    folder = Path(settings.RETORT_VAR) / "run"
    folder.mkdir(parents=True, exist_ok=True)
    for name in devices():
        descriptor = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        try:
            yield name
        finally:
            os.close(descriptor)
        return
    yield None

"""The distiller's exceptions: one tree, permanent and transient told apart.

It mirrors ``evaluator.errors``: every message is one sentence that names the field or file and the
remedy. The command line prints it as it stands and exits with code 2 (``InputError``) or 1 (the
others).
"""

import errno

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DistillerError(Exception):
    """Base of everything this library raises on purpose.

    ``transient`` says whether trying again, unchanged, may succeed.
    """

    transient = False


class InputError(DistillerError):
    """What the user gave cannot be used: an unknown filter, a malformed row, a missing file."""


class CheckpointError(InputError):
    """A folder is no checkpoint that can be used, or not a safe one."""


class CorpusError(InputError):
    """A corpus is empty, damaged, or carries no supervised token."""


class TrainingError(DistillerError):
    """Training cannot go on: a loss that is not finite, a resume state of another training."""


class DiskError(DistillerError):
    """Nothing more can be written; what was complete by then stays."""

    transient = True


def disk_error(error: OSError) -> DiskError | None:
    """``error`` as one sentence if it says that the disk, or what may be used of it, is full."""
    if error.errno not in _FULL:
        return None
    where = f" ({error.filename})" if error.filename else ""
    return DiskError(
        f"disk: no room to write{where}: {error.strerror}; make room and start it again."
    )

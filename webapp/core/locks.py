"""A lock that all processes of an installation share, held until the transaction ends."""

from __future__ import annotations

from django.db import connection

_STORE = 0x5245544F  # "RETO": any number that nothing else of this database locks


def lock_store() -> None:
    """Nobody else moves whole folders into or out of the file store until this transaction ends.

    Who registers a folder under its content hash and who takes an unreferenced one away both look
    first and act then; they do it one after the other.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_STORE])

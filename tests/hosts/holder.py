"""A process that holds the locks a transaction of a worker may hold, and is never heard of again.

python tests/hosts/holder.py SHARD FILE: FILE appears once the locks are held.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import django


def hold(shard_id: int, sign: Path) -> None:
    from django.db import connection, transaction

    from webapp.core.locks import lock_store
    from webapp.runs import leases
    from webapp.runs.models import Shard

    shard = Shard.objects.select_related("stage").get(pk=shard_id)
    with transaction.atomic():
        leases.lock_run(shard.stage.run_id)
        Shard.objects.select_for_update(no_key=True).get(pk=shard.pk)
        lock_store()
        with connection.cursor() as cursor:  # of claims of people with a limit
            cursor.execute("SELECT pg_advisory_xact_lock(hashtext('runs_claim'))")
        sign.touch()
        signal.pause()


if __name__ == "__main__":
    django.setup()
    hold(int(sys.argv[1]), Path(sys.argv[2]))

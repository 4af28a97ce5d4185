"""What goes by itself after a while: uploads that nobody goes on with, and runs' working files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from django.conf import settings
from django.db.models import Exists, OuterRef
from django.utils import timezone

from webapp.checkpoints import uploads
from webapp.checkpoints.models import Upload
from webapp.core import store
from webapp.housekeeping import garbage
from webapp.housekeeping.models import TidiedStage
from webapp.runs import files, resuming
from webapp.runs.models import FINAL_STATES, Segment, Shard, Stage

_LEASE = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ROUND = 200  # stages of one round: the next one goes on


def tidy() -> None:
    """One round of everything that is thrown away by itself."""
    abandon_uploads()
    drop_working_files()
    garbage.collect()


def abandon_uploads(now: datetime | None = None) -> int:
    """Forget uploads that got no bytes for RETORT_KEEP_UPLOAD_DAYS and became no checkpoint.

    That of a checkpoint stays as long as it does: where it came from stands nowhere else. Returns
    how many; 0 days: none ever.
    """
    days = settings.RETORT_KEEP_UPLOAD_DAYS
    if not days:
        return 0
    old = Upload.objects.filter(touched_at__lt=(now or timezone.now()) - timedelta(days=days))
    idle = old.exclude(state__in=(Upload.State.FETCHING, Upload.State.CHECKING))
    found = list(idle.exclude(state=Upload.State.REGISTERED, checkpoint__isnull=False))
    for upload in found:
        uploads.delete(upload)
    return len(found)


def drop_working_files(now: datetime | None = None) -> int:
    """Remove what runs that ended RETORT_KEEP_WORK_DAYS ago needed only to go on.

    That is training's resume state (in the bucket, too), what leases that did not count have
    written, and the children's last lines. Segments that count, the corpus and the specification
    stay. Returns the bytes; 0 days: nothing ever.
    """
    days = settings.RETORT_KEEP_WORK_DAYS
    if not days:
        return 0
    now = now or timezone.now()
    here = store.place_name()  # other hosts have working files of their own
    done = TidiedStage.objects.filter(
        stage=OuterRef("pk"), host=here, at__gte=OuterRef("run__finished_at")
    )
    ended = Stage.objects.filter(
        ~Exists(done),
        run__state__in=FINAL_STATES,
        run__finished_at__lt=now - timedelta(days=days),
    )
    freed = 0
    for stage in ended.order_by("pk")[:_ROUND]:
        resuming.forget(stage)
        for path in _working_files(stage):
            freed += garbage.size_of(path)
            garbage.remove(path)
        Stage.objects.filter(pk=stage.pk).update(log_tail="")
        TidiedStage.objects.update_or_create(stage=stage, host=here, defaults={"at": now})
    return freed


def _working_files(stage: Stage) -> Iterator[Path]:
    """What of the stage's folder no result refers to."""
    folder = files.stage_folder(stage)
    if not folder.is_dir():
        return
    shards = Shard.objects.filter(stage=stage)
    counted = json.dumps([stage.result, *shards.values_list("result", flat=True)])
    accepted = set(Segment.objects.filter(shard__stage=stage).values_list("name", flat=True))
    for path in folder.iterdir():
        name = path.name
        lost = _LEASE.fullmatch(name) and name not in counted
        if (
            lost
            or name in ("resume", resuming.FOLDER)
            or name.startswith((".spec-", resuming.LINKS))
        ):
            yield path
    segments = files.segments_folder(stage)
    if segments.is_dir():
        yield from (path for path in segments.iterdir() if path.name not in accepted)

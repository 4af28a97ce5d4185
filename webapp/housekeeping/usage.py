"""What takes how much room: by a person from the rows, of the whole disk by looking."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.db.models import Count, Sum

from webapp.checkpoints.models import LIVE_UPLOADS, Checkpoint, Upload
from webapp.core.models import User
from webapp.housekeeping import garbage
from webapp.runs.models import KeptChats, Run, Segment


@dataclass(frozen=True, slots=True)
class Part:
    """A kind of files. ``garbage_bytes`` is None where nothing is swept."""

    name: str
    size_bytes: int
    count: int
    garbage_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Disk:
    """The file store's parts, and the disk that it lies on."""

    parts: list[Part]
    free_bytes: int
    total_bytes: int


def own(user: User) -> list[Part]:
    """What a person's things take, in a fixed number of queries; shared files count for each."""
    mine = Checkpoint.objects.filter(owner=user).exclude(path="")
    checkpoints = mine.aggregate(size=Sum("size_bytes"), count=Count("pk"))
    coming = Upload.objects.filter(owner=user, state__in=LIVE_UPLOADS).aggregate(
        size=Sum("files__offset_bytes"), count=Count("pk", distinct=True)
    )
    chats = KeptChats.objects.filter(owner=user).aggregate(
        size=Sum("size_bytes"), count=Count("pk")
    )
    drawn = Segment.objects.filter(shard__stage__run__owner=user).aggregate(size=Sum("size_bytes"))
    runs = Run.objects.filter(owner=user).count()
    return [
        Part("Checkpoints", checkpoints["size"] or 0, checkpoints["count"]),
        Part("Uploads", coming["size"] or 0, coming["count"]),
        Part("Chats", chats["size"] or 0, chats["count"]),
        Part("Texts of runs", drawn["size"] or 0, runs),
    ]


def disk() -> Disk:
    """Look at every file of the store."""
    root = Path(settings.MEDIA_ROOT)
    root.mkdir(parents=True, exist_ok=True)
    lost: dict[str, int] = {}
    for path in garbage.unreferenced():
        folder = path.partition("/")[0]
        lost[folder] = lost.get(folder, 0) + garbage.size_of(garbage.place(path))
    parts = [
        Part(
            entry.name,
            garbage.size_of(Path(entry.path)),
            sum(1 for _ in os.scandir(entry.path)) if entry.is_dir() else 1,
            lost.get(entry.name, 0) if entry.name in garbage.STORES else None,
        )
        for entry in sorted(os.scandir(root), key=lambda each: each.name)
        if not entry.name.startswith(".")  # ours for a moment: a trial, what is being removed
    ]
    used = shutil.disk_usage(root)
    return Disk(sorted(parts, key=lambda each: -each.size_bytes), used.free, used.total)

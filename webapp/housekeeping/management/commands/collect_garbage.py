"""``manage.py collect_garbage``: remove what nothing in the database refers to."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.template.defaultfilters import filesizeformat

from webapp.housekeeping import garbage


class Command(BaseCommand):
    help = "Remove files of the store that no row has referred to for the grace time."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--dry-run", action="store_true", help="name everything unreferenced, remove nothing"
        )
        parser.add_argument(
            "--grace-hours", type=float, default=None,
            help="instead of RETORT_GARBAGE_HOURS; nothing may write to the store below an hour",
        )  # fmt: skip

    def handle(self, *args: Any, **options: Any) -> None:
        hours = options["grace_hours"]
        grace = None if hours is None else timedelta(hours=max(hours, 0.0))
        found = garbage.collect(grace=grace, dry_run=options["dry_run"])
        for each in found:
            self.stdout.write(f"{each.path}\t{each.size_bytes}")
        total = filesizeformat(sum(each.size_bytes for each in found)).replace("\xa0", " ")
        what = "unreferenced, nothing removed" if options["dry_run"] else "removed"
        self.stdout.write(f"{len(found)} {what}, {total}")

"""Restore a backup into an empty installation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from webapp.core import backup
from webapp.core.errors import UserError


class Command(BaseCommand):
    help = (
        "Verify a backup and restore it into this installation, which must be empty; then bring "
        "the database to this release. Web and workers are stopped meanwhile. Run manage.py "
        "judge_role afterwards: rights of database roles are not in a backup."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", type=Path)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            kept = backup.restore(options["folder"].absolute())
        except UserError as error:
            raise CommandError(error.sentence, returncode=2) from None
        self.stdout.write(f"{kept.files} files, {sum(kept.rows.values())} rows restored.")
        if count := backup.unreadable_secrets():
            self.stderr.write(
                f"{count} stored secrets cannot be read: set SECRET_KEY and RETORT_ENCRYPTION_KEYS "
                "to what they were where the backup was made."
            )

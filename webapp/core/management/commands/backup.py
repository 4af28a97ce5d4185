"""Write a backup of database and files."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from webapp.core import backup
from webapp.core.errors import UserError


class Command(BaseCommand):
    help = (
        "Write a snapshot of the database, all files of the store and a manifest of hashes into a "
        "new folder, while everything goes on. Secret keys (SECRET_KEY, RETORT_ENCRYPTION_KEYS) "
        "are not in it: keep them elsewhere, for without them no endpoint's key can be read."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", type=Path)
        parser.add_argument(
            "--dated", action="store_true", help="into a folder in it, named after the time"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        folder: Path = options["folder"].absolute()
        if options["dated"]:
            folder /= datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
        try:
            kept = backup.backup(folder)
        except UserError as error:
            raise CommandError(error.sentence, returncode=2) from None
        rows = sum(kept.rows.values())
        self.stdout.write(
            f"{kept.folder}: {kept.files} files, {rows} rows, {kept.size_bytes} bytes."
        )

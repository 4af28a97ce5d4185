"""Encrypt every stored secret anew under the newest of this installation's keys."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from webapp.core.errors import UserError
from webapp.endpoints import services


class Command(BaseCommand):
    help = (
        "Encrypt the endpoints' keys anew under the first of RETORT_ENCRYPTION_KEYS (without them: "
        "SECRET_KEY). Afterwards the older ones can be taken off the list."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            count = services.reseal_all()
        except UserError as error:
            raise CommandError(error.sentence, returncode=2) from None
        self.stdout.write(f"{count} sealed anew.")

"""Encrypt every stored secret anew under the newest of this installation's keys."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from webapp.core.errors import UserError
from webapp.endpoints import services as endpoints
from webapp.notifications import services as notifications


class Command(BaseCommand):
    help = (
        "Encrypt the endpoints' keys and the webhooks' secrets anew under the first of "
        "RETORT_ENCRYPTION_KEYS (without them: SECRET_KEY). Afterwards the older ones can be "
        "taken off the list."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            count = endpoints.reseal_all() + notifications.reseal_all()
        except UserError as error:
            raise CommandError(error.sentence, returncode=2) from None
        self.stdout.write(f"{count} sealed anew.")

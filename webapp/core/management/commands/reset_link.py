"""``manage.py reset_link USER``: a link for a new password, where no mail carries one."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from webapp.core import accounts, audit
from webapp.core.models import User


class Command(BaseCommand):
    help = "Print a link by which a person sets a new password, once, within a day."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("user", help="the account's name")

    def handle(self, *args: Any, **options: Any) -> None:
        name = options["user"]
        user = User.objects.filter(username=name).first()
        if user is None:
            raise CommandError(
                f"user: nobody is called {name!r}; see the page People.", returncode=2
            )
        if not user.is_active:
            raise CommandError(f"user: {name!r} is deactivated; activate it first.", returncode=2)
        audit.record(None, "account.reset_link", user)
        self.stdout.write(accounts.reset_link(user))

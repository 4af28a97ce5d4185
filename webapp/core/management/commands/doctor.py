"""Look at a deployment and say what is wrong with it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from webapp.core import doctor


class Command(BaseCommand):
    help = (
        "Check settings, database, migrations, clock, keys, broker, storage, workers and sandbox: "
        "a line each, what is wrong and how to mend it. Exit code 1 where anything is."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        findings = doctor.examine()
        if options["json"]:
            self.stdout.write(json.dumps([asdict(each) for each in findings], indent=1))
        else:
            for each in findings:
                word = "OK   " if each.ok else "WRONG"
                self.stdout.write(f"{word} {each.name}: {each.sentence}")
        if not all(each.ok for each in findings):
            sys.exit(1)

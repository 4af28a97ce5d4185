"""Everything in one terminal: embedded servers, web, workers."""

from __future__ import annotations

import os
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser

from webapp.core.errors import UserError
from webapp.core.processes import Processes


class Command(BaseCommand):
    help = "Run web, workers and (where none is configured) PostgreSQL and Redis until Ctrl-C."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=int, default=8000)
        parser.add_argument("--workers", type=int, default=1)
        parser.add_argument(
            "--cpu", action="store_true",
            help="without a CUDA device, the CPU generates, trains and evaluates",
        )  # fmt: skip

    def handle(self, *args: Any, **options: Any) -> None:
        if options["workers"] < 0:
            raise CommandError("--workers: give 0 or more.", returncode=2)
        if options["cpu"]:
            os.environ["RETORT_GPU_QUEUE_ON_CPU"] = "1"
        call_command("migrate", verbosity=0)
        try:
            with Processes() as processes:
                processes.start_web(options["host"], options["port"])
                processes.start_workers(options["workers"])
                self.stderr.write(f"http://{options['host']}:{options['port']}/ (Ctrl-C stops it)")
                sentence = processes.wait()
        except KeyboardInterrupt:
            return
        except UserError as error:
            raise CommandError(error.sentence, returncode=2) from None
        raise CommandError(sentence)

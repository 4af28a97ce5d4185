"""Everything in one terminal: embedded servers, web, workers."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlencode

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection

from webapp.config.celery import CPU, GPU, JUDGE, UPKEEP
from webapp.core.accounts import first_administrator
from webapp.core.errors import UserError
from webapp.core.processes import Processes
from webapp.runs.management.commands.judge_role import JUDGE_ROLE, make_role


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
        os.environ.setdefault("RETORT_LOG_FORMAT", "text")  # people read this terminal
        if options["cpu"]:
            os.environ["RETORT_GPU_QUEUE_ON_CPU"] = "1"
        call_command("migrate", verbosity=0)
        try:
            with Processes() as processes:
                processes.start_web(options["host"], options["port"])
                _start_workers(processes, options["workers"])
                if (made := first_administrator()) is not None:
                    admin, password = made
                    self.stderr.write(f"Sign in as {admin} with the password {password}")
                self.stderr.write(f"http://{options['host']}:{options['port']}/ (Ctrl-C stops it)")
                sentence = processes.wait()
        except KeyboardInterrupt:
            return
        except UserError as error:
            raise CommandError(error.sentence, returncode=2) from None
        raise CommandError(sentence)


def _start_workers(processes: Processes, count: int) -> None:
    """Start workers of all queues; untrusted programs get one of their own, with few rights.

    That is so where the database is the embedded one and nobody chose the queues. Otherwise the
    workers serve what RETORT_QUEUES says, with the rights that DATABASE_URL gives.
    """
    chosen = {"DATABASE_URL", "RETORT_QUEUES"} & set(os.environ)
    if not count or chosen:
        processes.start_workers(count)
        return
    make_role(JUDGE_ROLE, None)
    database = connection.settings_dict
    connection.close()
    processes.start_workers(count, RETORT_QUEUES=f"{GPU},{CPU},{UPKEEP}")
    query = urlencode({"host": database["HOST"], "user": JUDGE_ROLE})
    processes.start(
        "judge", ["-m", "workers"], RETORT_QUEUES=JUDGE,
        DATABASE_URL=f"postgres:///{database['NAME']}?{query}",
    )  # fmt: skip

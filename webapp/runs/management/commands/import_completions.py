"""Grade completions made elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from webapp.benchmarks.models import Benchmark
from webapp.core.errors import UserError
from webapp.core.models import User
from webapp.core.processes import Processes
from webapp.runs import services, watching
from webapp.runs.models import State


class Command(BaseCommand):
    help = "Take in and grade a file of completions: {problem_id, sample, completion} a line."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument("--benchmark", required=True, help="the benchmark's name")
        parser.add_argument("--checkpoint", required=True, help="who wrote the completions")
        parser.add_argument("--owner", help="a user's name (default: the first administrator)")
        parser.add_argument(
            "--wait",
            action="store_true",
            help="wait for the figures, with a worker of its own where none runs",
        )

    def handle(self, *args: Any, file: Path, **options: Any) -> None:
        try:
            run = services.import_completions(
                owner=_owner(options["owner"]),
                checkpoint_name=options["checkpoint"],
                benchmark=_benchmark(options["benchmark"]),
                path=file,
            )
        except UserError as error:
            raise CommandError(str(error), returncode=2) from None
        if not options["wait"] and not watching.worker_alive():
            self.stdout.write(f"Run {run.pk} waits for a worker: manage.py up starts one.")
            return
        with Processes() as processes:
            try:
                watching.wait_for(run, lambda stages: _ensure_worker(processes))
            except KeyboardInterrupt:
                raise CommandError(f"Run {run.pk} is left to the workers.") from None
        if run.state != State.FINISHED:
            raise CommandError(watching.failure(run))
        evaluation = run.evaluations.get()
        score = "incomplete" if evaluation.pass_at_1 is None else f"{evaluation.pass_at_1:.4f}"
        self.stdout.write(f"{evaluation}: pass@1[avg-of-{evaluation.samples}] {score}")


def _ensure_worker(processes: Processes) -> None:
    """A worker that runs may have gone meanwhile; then there is one of our own."""
    if (sentence := processes.ended()) is not None:
        raise CommandError(sentence)
    if not processes.names and not watching.worker_alive():
        processes.start_workers(1)


def _owner(name: str | None) -> User:
    users = User.objects.order_by("pk")
    owner = (users.filter(username=name) if name else users.filter(is_superuser=True)).first()
    if owner is None:
        raise UserError(
            f"owner: no such user ({name or 'no administrator yet'}); make one with "
            "manage.py createsuperuser."
        )
    return owner


def _benchmark(name: str) -> Benchmark:
    benchmark = Benchmark.objects.filter(name=name).first()
    if benchmark is None:
        raise UserError(
            f"benchmark: {name!r} is not installed; run manage.py import_benchmark {name} FILE."
        )
    return benchmark

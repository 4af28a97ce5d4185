"""Grade completions made elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction

from evaluator.engines.replay import models_of
from evaluator.errors import InputError
from webapp.benchmarks.models import Benchmark
from webapp.core.errors import UserError
from webapp.core.models import User
from webapp.core.processes import Processes
from webapp.runs import services, watching
from webapp.runs.models import Run, State


class Command(BaseCommand):
    help = (
        "Take in and grade a file of completions: {problem_id, sample, completion, model?} a line. "
        "Each model of the file becomes an evaluation of its own."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument("--benchmark", required=True, help="the benchmark's name")
        parser.add_argument("--checkpoint", help="who wrote the completions (default: --model)")
        whose = parser.add_mutually_exclusive_group()
        whose.add_argument("--model", help="take only the rows of this model")
        whose.add_argument(
            "--every-model",
            action="store_true",
            help="one evaluation for each model that the rows name, under the models' names",
        )
        parser.add_argument("--owner", help="a user's name (default: the first administrator)")
        parser.add_argument(
            "--wait",
            action="store_true",
            help="wait for the figures, with a worker of its own where none runs",
        )

    def handle(self, *args: Any, file: Path, **options: Any) -> None:
        try:
            owner, benchmark = _owner(options["owner"]), _benchmark(options["benchmark"])
            with transaction.atomic():  # every model, or none
                runs = [
                    services.import_completions(
                        owner=owner, checkpoint_name=name, benchmark=benchmark, path=file,
                        model=model,
                    )
                    for name, model in _whose(file, options)
                ]  # fmt: skip
        except UserError as error:
            raise CommandError(str(error), returncode=2) from None
        if not options["wait"] and not watching.worker_alive():
            waiting = ", ".join(str(run.pk) for run in runs)
            self.stdout.write(f"Run {waiting} waits for a worker: manage.py up starts one.")
            return
        with Processes() as processes:
            for run in runs:
                self._await(run, processes)

    def _await(self, run: Run, processes: Processes) -> None:
        try:
            watching.wait_for(run, lambda stages: _ensure_worker(processes))
        except KeyboardInterrupt:
            raise CommandError(f"Run {run.pk} is left to the workers.") from None
        if run.state != State.FINISHED:
            raise CommandError(watching.failure(run))
        evaluation = run.evaluations.get()
        score = "incomplete" if evaluation.pass_at_1 is None else f"{evaluation.pass_at_1:.4f}"
        self.stdout.write(f"{evaluation}: pass@1[avg-of-{evaluation.samples}] {score}")


def _whose(file: Path, options: dict[str, Any]) -> list[tuple[str, str | None]]:
    """The checkpoints' names, each with the model whose rows are taken (None: all rows)."""
    if options["every_model"]:
        if options["checkpoint"]:
            raise UserError("checkpoint: with --every-model the models' names are used; leave it.")
        try:
            models = models_of(file)
        except InputError as error:
            raise UserError(f"file: {error}", "file") from None
        if not models:
            raise UserError(f"file: no row of {file.name} names a model; give --checkpoint NAME.")
        return [(model, model) for model in models]
    name = options["checkpoint"] or options["model"]
    if not name:
        raise UserError("checkpoint: say who wrote the completions, with --checkpoint NAME.")
    return [(name, options["model"])]


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

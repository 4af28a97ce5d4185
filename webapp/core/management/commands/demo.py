"""The whole main job on this machine, from nothing: models, traces, student, figures, report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from distiller import checkpoints as folders
from distiller.errors import DistillerError
from distiller.recipe import DEMO_PROMPTS, demo_recipe
from evaluator import report_files
from evaluator.benchmarks import arithmetic
from webapp.benchmarks import services as benchmarks
from webapp.checkpoints.models import Checkpoint
from webapp.checkpoints.services import register_folder
from webapp.core.accounts import first_administrator
from webapp.core.errors import UserError
from webapp.core.models import User
from webapp.core.processes import Processes
from webapp.leaderboard import reports
from webapp.runs import services, watching
from webapp.runs.models import Evaluation, Run, Stage, State

BENCHMARK_PROBLEMS, BENCHMARK_SEED = 200, 2024
PROMPTS_SEED = 7
PLANTED_PROMPTS = 12
PROMPT_SET = "arithmetic-prompts"


class Command(BaseCommand):
    help = (
        "Build a base and a teacher, distil a student, measure all three, write a report, and "
        "serve the pages until Ctrl-C (DEMO_SERVE=0: end instead)."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=int, default=8000)

    def handle(self, *args: Any, **options: Any) -> None:
        serve = os.environ.get("DEMO_SERVE", "1") != "0"
        address = f"http://{options['host']}:{options['port']}/"
        began = time.monotonic()
        os.environ.setdefault("RETORT_GPU_QUEUE_ON_CPU", "1")  # its models are small enough
        os.environ.setdefault("LOG_LEVEL", "WARNING")  # the terminal is for the bars
        result: dict[str, Any] | None = None
        call_command("migrate", verbosity=0)
        owner = self._administrator()
        try:
            with Processes() as processes:
                if serve:
                    processes.start_web(options["host"], options["port"])
                    self.stderr.write(f"Watch it at {address}")
                processes.start_workers(1)
                run = self._distil(owner, processes)
                result = _result(run, began)
                if serve:
                    self.stdout.write(json.dumps({"demo": result}))
                    self.stdout.flush()
                    self.stderr.write(f"Serving {address} until Ctrl-C.")
                    raise CommandError(processes.wait())
        except KeyboardInterrupt:
            if result is None:
                raise CommandError("interrupted", returncode=130) from None
            return
        except UserError as error:
            raise CommandError(error.sentence) from None
        # Everything that could still print has ended, so that this line is the last one.
        self.stdout.write(json.dumps({"demo": result}))

    def _administrator(self) -> User:
        """The first administrator; where nobody has an account, one who is made and told."""
        if (made := first_administrator()) is not None:
            admin, password = made
            self.stderr.write(f"Sign in as {admin} with the password {password}")
            return admin
        found = User.objects.filter(is_superuser=True).order_by("pk").first()
        if found is None:
            raise CommandError("No account is an administrator: run manage.py createsuperuser.")
        return found

    def _distil(self, owner: User, processes: Processes) -> Run:
        """Install what the distillation needs, launch it and see it through."""
        problems = arithmetic.generate(BENCHMARK_PROBLEMS, seed=BENCHMARK_SEED)
        # A few of the benchmark's own problems stand among the prompts, as they do on the web:
        # decontamination has to find them.
        prompts = {
            prompt.id: prompt
            for prompt in (
                *problems[:PLANTED_PROMPTS],
                *arithmetic.generate(DEMO_PROMPTS, seed=PROMPTS_SEED),
            )
        }
        benchmark = benchmarks.install_benchmark(
            "arithmetic", problems, source=f"generated, seed {BENCHMARK_SEED}"
        )
        benchmarks.install_prompt_set(PROMPT_SET, list(prompts.values()))
        folder = Path(settings.RETORT_VAR) / "demo"
        _build_toys(folder, exclude=benchmarks.problems_file(benchmark))
        names = {}
        for role in ("base", "teacher"):
            names[role] = _register(owner, f"arithmetic-{role}", folder / role)
        student = _free_name("arithmetic-student")
        recipe = demo_recipe(**names, student=student, prompts=PROMPT_SET)
        run = services.launch_distillation(owner=owner, recipe=recipe)
        with _bars() as show:

            def look(stages: list[Stage]) -> None:
                if (sentence := processes.ended()) is not None:
                    raise CommandError(sentence)
                show(stages)

            watching.wait_for(run, look)
        if run.state != State.FINISHED:
            raise CommandError(watching.failure(run))
        return run


def _build_toys(folder: Path, *, exclude: Path) -> None:
    """Build base and teacher in a process of its own: no command of ours imports torch."""
    command = ["-m", "distiller", "toy", "--out", str(folder), "--exclude", str(exclude)]
    done = subprocess.run([sys.executable, *command], cwd=settings.BASE_DIR, check=False)
    if done.returncode != 0:
        raise CommandError("The base and the teacher could not be built; see above.")


def _register(owner: User, prefix: str, folder: Path) -> str:
    """The name that the folder's contents have in the store, where they are put if need be."""
    try:
        digest = folders.content_hash(folder)
    except DistillerError as error:
        raise CommandError(str(error)) from None
    known = Checkpoint.objects.filter(content_hash=digest, name__startswith=prefix).first()
    if known is None:
        known = register_folder(owner=owner, name=_free_name(prefix), folder=folder)
    return known.name


def _free_name(prefix: str) -> str:
    """``prefix``, or ``prefix-2`` and so on where that is taken by an earlier demonstration."""
    name, number = prefix, 1
    while Checkpoint.objects.filter(name=name).exists():
        number += 1
        name = f"{prefix}-{number}"
    return name


@contextmanager
def _bars() -> Iterator[Callable[[list[Stage]], None]]:
    """A bar per stage on a terminal; a line per change of state elsewhere."""
    console = Console(stderr=True)
    states: dict[int, str] = {}

    def tell(stages: list[Stage]) -> None:
        for stage in stages:
            if states.get(stage.pk, State.WAITING) != stage.state:
                states[stage.pk] = stage.state
                console.print(f"{stage.title}: {stage.state}", highlight=False)

    if not console.is_terminal:
        yield tell
        return
    columns = (
        TextColumn("{task.description:<34}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"), TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console) as progress:
        bars: dict[int, Any] = {}

        def draw(stages: list[Stage]) -> None:
            for stage in stages:
                if stage.pk not in bars:
                    bars[stage.pk] = progress.add_task(
                        stage.title, start=False, total=None, unit=""
                    )
                if stage.state == State.RUNNING:
                    progress.start_task(bars[stage.pk])
                progress.update(
                    bars[stage.pk], completed=stage.done, total=stage.total or None,
                    unit=stage.unit,
                )  # fmt: skip
                if stage.state == State.FINISHED:
                    progress.stop_task(bars[stage.pk])

        yield draw


def _result(run: Run, began: float) -> dict[str, Any]:
    """Each role's figures, and where the student's report lies."""
    result: dict[str, Any] = {}
    for evaluation in run.evaluations.select_related("checkpoint", "benchmark").order_by("role"):
        score = (evaluation.metrics or {})["pass@1"]
        result[evaluation.role] = {
            "pass@1": score["value"],
            "low": score["low"],
            "high": score["high"],
            f"cons@{evaluation.samples}": (evaluation.metrics or {})["cons@k"][
                str(evaluation.samples)
            ],
        }
        if evaluation.role == "student":
            result["report"] = _report(evaluation)
    return result | {"seconds": round(time.monotonic() - began, 1)}


def _report(evaluation: Evaluation) -> str:
    """Write the page beside the models; the path is relative to the checkout where it is in it.

    Not into the store, where what no row refers to is garbage.
    """
    path = Path(settings.RETORT_VAR) / "demo" / f"evaluation-{evaluation.pk}.html"
    report_files.write(reports.content(evaluation), "html", path)
    inside = path.is_relative_to(settings.BASE_DIR)
    return str(path.relative_to(settings.BASE_DIR) if inside else path)

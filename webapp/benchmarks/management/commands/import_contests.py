"""Install contest bundles, by which programs are rated, and the population of percentiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction

from evaluator.benchmarks import codeforces
from evaluator.errors import EvaluatorError
from evaluator.records import Problem
from evaluator.run_rating import Yardstick
from webapp.benchmarks.contests import install_contests, install_population
from webapp.benchmarks.services import install_benchmark
from webapp.core.errors import UserError
from webapp.runs.ratings import rate_again


class Command(BaseCommand):
    help = "Install contest bundles (python -m evaluator import-contest makes them)."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("files", type=Path, nargs="*", help="bundles, or folders of them")
        parser.add_argument(
            "--population",
            type=Path,
            help="ratings that percentiles refer to: a JSON list, or {rating: count}",
        )
        parser.add_argument(
            "--problems",
            action="store_true",
            help="install the bundles' problems as a version of the benchmark codeforces",
        )

    def handle(
        self,
        *args: Any,
        files: list[Path],
        population: Path | None,
        problems: bool,
        **options: Any,
    ) -> None:
        if not files and population is None:
            raise CommandError("files: give at least one bundle, or --population.", returncode=2)
        try:
            given = Yardstick.read(files, population)
            made = codeforces.of_contests(given.contests) if problems else []
            with transaction.atomic():  # all of it, or nothing
                self._install(given, made, source=", ".join(file.name for file in files))
        except (EvaluatorError, UserError) as error:
            raise CommandError(str(error), returncode=2) from None
        if count := rate_again():
            self.stdout.write(f"Rated again: {count} evaluation{'' if count == 1 else 's'}.")

    def _install(self, given: Yardstick, problems: list[Problem], source: str) -> None:
        for contest in install_contests(given.contests):
            self.stdout.write(f"{contest.name}: {contest.participants:,} rated participants.")
        if given.population is not None:
            row = install_population(given.population)
            self.stdout.write(f"Percentiles refer to {row.name}: {row.size:,} ratings.")
        if problems:
            benchmark = install_benchmark(codeforces.NAME, problems, source=source)
            self.stdout.write(
                f"{benchmark.title}: {benchmark.problem_count} problems, version "
                f"{benchmark.content_hash[:8]}."
            )

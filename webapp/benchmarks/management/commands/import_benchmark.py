"""Install a benchmark from a local file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from evaluator.benchmarks import hub
from evaluator.benchmarks.files import read_problems
from evaluator.errors import EvaluatorError
from webapp.benchmarks.services import install_benchmark
from webapp.core.errors import UserError


class Command(BaseCommand):
    help = "Install a benchmark from a file: .jsonl, .jsonl.gz, .parquet or .csv."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="the benchmark's name, as aime_2024")
        parser.add_argument("file", type=Path)

    def handle(self, *args: Any, name: str, file: Path, **options: Any) -> None:
        try:
            problems = hub.checked(name, read_problems(file, name))
            benchmark = install_benchmark(name, problems, source=file.name)
        except (EvaluatorError, UserError) as error:
            raise CommandError(str(error), returncode=2) from None
        self.stdout.write(
            f"{benchmark.title}: {benchmark.problem_count} problems, version "
            f"{benchmark.content_hash[:8]}."
        )

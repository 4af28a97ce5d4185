"""Install a benchmark from the hub."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from evaluator import benchmarks
from evaluator.benchmarks import hub
from evaluator.errors import EvaluatorError
from webapp.benchmarks.services import install_benchmark
from webapp.core.errors import UserError


class Command(BaseCommand):
    help = "Fetch a benchmark from the Hugging Face hub and install it."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="the benchmark's name, as aime_2024")

    def handle(self, *args: Any, name: str, **options: Any) -> None:
        try:
            problems = hub.fetch(name)
            source = benchmarks.get(name).hub
            assert source is not None, "only benchmarks of the hub can be fetched"
            benchmark = install_benchmark(
                name, problems, source=f"hub: {source.repo}@{source.revision}"
            )
        except (EvaluatorError, UserError) as error:
            raise CommandError(str(error), returncode=2) from None
        self.stdout.write(
            f"{benchmark.title}: {benchmark.problem_count} problems, version "
            f"{benchmark.content_hash[:8]}."
        )

"""Install a prompt set from a local file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from evaluator.benchmarks.files import read_problems
from evaluator.errors import EvaluatorError
from webapp.benchmarks.services import install_prompt_set
from webapp.core.errors import UserError


class Command(BaseCommand):
    help = "Install a prompt set from a file: .jsonl, .jsonl.gz, .parquet or .csv."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="what the set is to be called")
        parser.add_argument("file", type=Path)
        parser.add_argument(
            "--like",
            default="math_500",
            help="the benchmark whose columns and answers the file has (default: %(default)s)",
        )

    def handle(self, *args: Any, name: str, file: Path, like: str, **options: Any) -> None:
        try:
            prompt_set = install_prompt_set(name, read_problems(file, like))
        except (EvaluatorError, UserError) as error:
            raise CommandError(str(error), returncode=2) from None
        self.stdout.write(
            f"{prompt_set.name}: {prompt_set.prompt_count} prompts, version "
            f"{prompt_set.content_hash[:8]}."
        )

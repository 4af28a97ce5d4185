"""Do one thing that a worker's clerk claimed: a report, or the score with disputes."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from evaluator.errors import EvaluatorError
from webapp.core.errors import UserError
from webapp.leaderboard import desk


class Command(BaseCommand):
    help = "Make one claimed report, or score one evaluation with its disputes (for workers)."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("kind", choices=["report", "disputes"])
        parser.add_argument("pk", type=int)

    def handle(self, *args: Any, kind: desk.Kind, pk: int, **options: Any) -> None:
        try:
            desk.do(desk.Job(kind, pk))
        except (EvaluatorError, UserError) as error:
            raise CommandError(str(error)) from None

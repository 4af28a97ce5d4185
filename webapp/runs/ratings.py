"""Evaluations of programs, rated by the installed contests."""

from __future__ import annotations

from typing import Any

from django.db import transaction

from evaluator import graders
from evaluator.errors import InputError
from webapp.benchmarks import contests
from webapp.runs.models import Completion, Evaluation


def rating_of(evaluation: Evaluation) -> dict[str, Any]:
    """``{"rating": …}`` for an evaluation's metrics; nothing where its answers are no programs.

    A contest's file that is gone leaves the score standing, and is named as the reason.
    """
    if not graders.get(evaluation.benchmark.grader).untrusted:
        return {}
    try:
        yardstick = contests.yardstick()
    except InputError as error:
        return {"rating": {"elo": None, "codeelo": None, "missing": str(error)}}
    rows = Completion.objects.filter(evaluation=evaluation).exclude(outcome="").order_by()
    found = yardstick.rate(
        (
            {"problem_id": problem_id, "sample": sample, "outcome": outcome}
            for problem_id, sample, outcome in rows.values_list(
                "problem__problem_id", "sample", "outcome"
            ).iterator()
        ),
        problem_ids=set(evaluation.benchmark.problems.values_list("problem_id", flat=True)),
        samples=evaluation.samples,
    )
    return {"rating": found}


def rate_again() -> int:
    """Rate every graded evaluation of programs by what is installed now; returns how many."""
    kinds = [name for name in graders.names() if graders.get(name).untrusted]
    graded = Evaluation.objects.filter(benchmark__grader__in=kinds, metrics__isnull=False)
    for pk in graded.values_list("pk", flat=True):
        with transaction.atomic():
            evaluation = Evaluation.objects.select_for_update(of=["self"]).get(pk=pk)
            if evaluation.metrics is not None:
                evaluation.metrics = evaluation.metrics | rating_of(evaluation)
                evaluation.save(update_fields=["metrics"])
    return len(graded)

"""Errors are retried: what they left open in a run that ended is drawn, or graded, again.

An engine error keeps a score incomplete (PROTOCOLS §2). Reopening queues the shards that hold such
a completion, and the grading after them; their children leave alone what came (evaluator/stages.py)
and what is drawn anew replaces the error (webapp/runs/leases.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from evaluator.records import FinishReason, Outcome
from webapp.runs.models import Completion, Evaluation, Run, Shard, Stage, State

# So often a worker draws errors again by itself: an endpoint may have been down for a minute.
REDRAWS = 1


def failed_samples(evaluation: Evaluation, problem_ids: Iterable[str]) -> int:
    """Samples of these problems of which no completion came."""
    return Completion.objects.filter(
        evaluation=evaluation,
        problem__problem_id__in=list(problem_ids),
        finish_reason=FinishReason.ERROR,
    ).count()


def drop_superseded(
    evaluation_id: int, problems: Mapping[str, int], rows: Iterable[Mapping[str, Any]]
) -> None:
    """Delete the rows of errors in place of which ``rows`` were drawn.

    ``problems`` gives the primary keys of problems by id. To be called in the transaction that adds
    the new rows.
    """
    drawn = {(problems[row["problem_id"]], row["sample"]) for row in rows}
    failed = Completion.objects.filter(
        evaluation_id=evaluation_id,
        problem_id__in={problem for problem, _ in drawn},
        finish_reason=FinishReason.ERROR,
    ).values_list("pk", "problem_id", "sample")
    stale = [pk for pk, problem, sample in failed if (problem, sample) in drawn]
    if stale:
        Completion.objects.filter(pk__in=stale).delete()


def is_mendable(run: Run) -> bool:
    """Whether a retry could complete a score that errors keep incomplete."""
    return any(_failed(evaluation) for evaluation in _incomplete(run))


def reopen(run: Run) -> None:
    """Queue again, without ringing, what errors left open. The run's row must be locked."""
    for evaluation in _incomplete(run):
        stages = _failed(evaluation)
        if "evaluate" in stages:
            failed = Completion.objects.filter(
                evaluation=evaluation, finish_reason=FinishReason.ERROR
            )
            Shard.objects.filter(pk__in=failed.values("segment__shard")).update(state=State.QUEUED)
        for kind in stages:
            stage = Stage.objects.filter(evaluation=evaluation, kind=kind)
            stage.update(state=State.WAITING, finished_at=None)
            if kind == "grade":
                Shard.objects.filter(stage__in=stage).update(state=State.QUEUED)


def _incomplete(run: Run) -> Iterable[Evaluation]:
    return run.evaluations.filter(metrics__complete=False)


def _failed(evaluation: Evaluation) -> tuple[str, ...]:
    """The kinds of the evaluation's stages that errors left open, in order."""
    found = Completion.objects.filter(evaluation=evaluation)
    drawn_here = evaluation.stages.filter(kind="evaluate").exists()
    if drawn_here and found.filter(finish_reason=FinishReason.ERROR).exists():
        return ("evaluate", "grade")
    if found.filter(outcome=Outcome.GRADER_ERROR).exists():
        return ("grade",)
    return ()

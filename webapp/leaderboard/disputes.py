"""Disputing an outcome and withdrawing it; the score with disputes, beside the grader's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from django.core.exceptions import PermissionDenied
from django.db import IntegrityError, transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from evaluator import disputes, graders
from evaluator.graders.pool import GraderPool
from evaluator.protocol import GradingPolicy
from evaluator.records import Outcome
from evaluator.records import Problem as ProblemRecord
from webapp.benchmarks.models import Problem
from webapp.core.errors import UserError
from webapp.core.models import User
from webapp.core.text import storable
from webapp.leaderboard import evaluations
from webapp.leaderboard.models import Dispute, DisputedScore
from webapp.projects.access import may_manage
from webapp.runs.models import Completion, Evaluation

MAX_REASON_CHARACTERS = 2000


def may_dispute(user: User, evaluation: Evaluation) -> bool:
    """Whether the person may: who launched the evaluation, and admins of its project."""
    return may_manage(user, evaluation.run)


def dispute(
    user: User, completion: Completion, claim: str, reason: str, *, alike: bool = False
) -> list[Dispute]:
    """Say that a sample's outcome is wrong; with ``alike`` also of the same problem's samples with
    the same answer and outcome. Raises UserError for what cannot be disputed, and PermissionDenied
    for a person who may not.
    """
    evaluation = completion.evaluation
    _require_may(user, evaluation)
    reason = storable(reason.strip())
    if not reason:
        raise UserError("reason: say why, in a sentence.", "reason")
    if len(reason) > MAX_REASON_CHARACTERS:
        raise UserError(f"reason: at most {MAX_REASON_CHARACTERS:,} characters, please.", "reason")
    if claim not in Dispute.Claim.values:
        raise UserError("claim: say whether it is correct or wrong.", "claim")
    if not completion.outcome or Outcome(completion.outcome).is_error:
        raise UserError("claim: the sample has no verdict to dispute; retry its run.", "claim")
    if (claim == Outcome.CORRECT) == (completion.outcome == Outcome.CORRECT):
        raise UserError("claim: that is what the grader says, too.", "claim")
    samples = [completion.sample]
    if alike and completion.answer is not None:
        samples = list(
            Completion.objects.filter(
                evaluation=evaluation, problem_id=completion.problem_id,
                answer=completion.answer, outcome=completion.outcome,
            ).order_by("sample").values_list("sample", flat=True)
        )  # fmt: skip
        open_ones = _open(evaluation).filter(problem_id=completion.problem_id)
        taken = set(open_ones.values_list("sample", flat=True)) - {completion.sample}
        samples = [sample for sample in samples if sample not in taken]
    try:
        with transaction.atomic():
            made = Dispute.objects.bulk_create(
                Dispute(
                    evaluation=evaluation, problem_id=completion.problem_id, sample=sample,
                    claim=claim, reason=reason, outcome=completion.outcome,
                    answer=completion.answer, author=user,
                )
                for sample in samples
            )  # fmt: skip
            _want_score(evaluation)
    except IntegrityError:
        raise UserError(
            "claim: this outcome is disputed already; withdraw that dispute first.", "claim"
        ) from None
    return made


def withdraw(user: User, found: Dispute) -> bool:
    """Take a dispute back; it stays on record. False where it was before.

    Raises PermissionDenied.
    """
    _require_may(user, found.evaluation)
    with transaction.atomic():
        changed = Dispute.objects.filter(pk=found.pk, withdrawn_at=None).update(
            withdrawn_at=timezone.now(), withdrawn_by=user
        )
        if changed:
            _want_score(found.evaluation)
    return bool(changed)


def open_of(evaluation: Evaluation) -> list[Dispute]:
    """The disputes that stand, in the order of problems and samples."""
    return list(_open(evaluation).select_related("problem", "author"))


def record(row: Dispute) -> disputes.Dispute:
    """The row as the evaluator knows it."""
    return disputes.Dispute(
        problem_id=row.problem.problem_id,
        sample=row.sample,
        claim=Outcome(row.claim),
        reason=row.reason,
        by=row.author.get_username(),
        at=row.created_at.isoformat(timespec="seconds"),
        outcome=Outcome(row.outcome),
        answer=row.answer,
    )


def golden_lines(evaluation: Evaluation) -> Iterator[str]:
    """The open disputes as JSONL: golden grading cases, and what ``report --disputes`` reads."""
    policy = {
        name: value
        for name, value in evaluation.protocol["policy"].items()
        if value != getattr(GradingPolicy(), name)
    }
    for row in open_of(evaluation):
        case = disputes.golden_case(
            record(row), kind=evaluation.benchmark.grader, gold=row.problem.answer, policy=policy
        )
        yield json.dumps({**case, **record(row).to_json()}, ensure_ascii=False) + "\n"


def score(evaluation_pk: int) -> None:
    """Work out the metrics with the open disputes and keep them; a worker's child does.

    What is disputed or withdrawn meanwhile makes it due again.
    """
    found = DisputedScore.objects.get(evaluation_id=evaluation_pk)
    evaluation = Evaluation.objects.select_related("benchmark").get(pk=evaluation_pk)
    words = [record(row) for row in open_of(evaluation)]
    metrics = None if not words else _rescored(evaluation, words)
    DisputedScore.objects.filter(pk=found.pk).update(
        metrics=metrics, scored=found.wanted, error="", claimed_until=None
    )


def _rescored(evaluation: Evaluation, words: Sequence[disputes.Dispute]) -> dict[str, object]:
    problems = [
        ProblemRecord(row.problem_id, row.problem, row.answer, row.subject or None,
                      row.level or None)
        for row in Problem.objects.filter(benchmark_id=evaluation.benchmark_id)
    ]  # fmt: skip
    rows = (row for row in evaluations.sample_rows(evaluation) if row["outcome"])
    grader = graders.get(evaluation.benchmark.grader)
    policy = GradingPolicy.model_validate(evaluation.protocol["policy"])
    assert evaluation.metrics is not None, "only what is graded is disputed"
    with GraderPool(1) as pool:
        return disputes.rescore(
            evaluation.metrics, problems, rows, words,
            equal=(lambda pairs: pool.equal(grader.name, pairs, policy))
            if grader.compares
            else None,
        )  # fmt: skip


def _open(evaluation: Evaluation) -> QuerySet[Dispute]:
    return Dispute.objects.filter(evaluation=evaluation, withdrawn_at=None)


def _want_score(evaluation: Evaluation) -> None:
    DisputedScore.objects.get_or_create(evaluation=evaluation)
    DisputedScore.objects.filter(evaluation=evaluation).update(wanted=F("wanted") + 1, error="")


def _require_may(user: User, evaluation: Evaluation) -> None:
    if not may_dispute(user, evaluation):
        raise PermissionDenied

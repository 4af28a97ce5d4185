"""What a report of a run in a folder is made of (``evaluator.report_files``)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from evaluator import disputes as disputed
from evaluator import graders, report, runner
from evaluator.disputes import Dispute
from evaluator.graders.pool import GraderPool
from evaluator.local import LocalRun
from evaluator.report_files import Content
from evaluator.store import Row


def content_of(
    run: LocalRun,
    *,
    generated_at: str,
    private_texts: bool = False,
    disputes: Sequence[Dispute] = (),
    jobs: int = 1,
) -> Content:
    """The content of a graded run's report; raises InputError before it is graded.

    A private benchmark's texts are left out unless ``private_texts``; then the report says that it
    must not be posted.
    """
    data = run.report_data(generated_at=generated_at, private_texts=True)
    grades = run.grades()
    if disputes:
        data["disputes"] = {
            "items": [dispute.to_json() for dispute in disputes],
            "metrics": _rescored(run, data["metrics"], grades, disputes, jobs),
        }
    claims = {dispute.key: str(dispute.claim) for dispute in disputes}
    hide = run.benchmark.private and not private_texts
    if run.benchmark.private and private_texts:
        data["notice"] = report.NOTICE
    return Content(
        data=report.without_texts(data) if hide else data,
        benchmark=run.benchmark.name,
        samples=run.samples,
        rows=lambda: _rows(run, grades, claims, hide=hide),
        problems=None if hide else lambda: (problem.to_json() for problem in run.problems),
        completions=None if hide else run.store.rows,
    )


def _rescored(
    run: LocalRun,
    metrics: dict[str, Any],
    grades: Sequence[Row],
    disputes: Sequence[Dispute],
    jobs: int,
) -> dict[str, Any]:
    tokens = {(row["problem_id"], row["sample"]): row["completion_tokens"]
              for row in run.store.rows()}  # fmt: skip
    rows = [
        {**row, "completion_tokens": tokens.get((row["problem_id"], row["sample"]))}
        for row in grades
    ]
    grader = graders.get(run.benchmark.grader)
    with GraderPool(jobs) as pool:
        return disputed.rescore(
            metrics,
            run.problems,
            rows,
            disputes,
            equal=(lambda pairs: pool.equal(grader.name, pairs, run.protocol.policy))
            if grader.compares
            else None,
        )


def _rows(
    run: LocalRun, grades: Sequence[Row], claims: dict[tuple[str, int], str], *, hide: bool
) -> Iterator[Row]:
    """Every sample's figures, in the order of problems and samples."""
    known = runner.by_id(run.problems)
    place = {problem.id: number for number, problem in enumerate(run.problems)}
    drawn = {
        (row["problem_id"], row["sample"]): {
            name: row.get(name) for name in ("finish_reason", "prompt_tokens", "completion_tokens")
        }
        for row in run.store.rows()
    }
    for row in sorted(grades, key=lambda row: (place[row["problem_id"]], row["sample"])):
        problem = known[row["problem_id"]]
        key = (problem.id, row["sample"])
        figures = {
            "problem_id": problem.id,
            "subject": problem.subject,
            "level": problem.level,
            "sample": row["sample"],
            "outcome": row["outcome"],
            "disputed": claims.get(key),
            "answer": row["answer"],
            "gold": problem.answer,
            "reason": row.get("reason"),
            "verdict": (row.get("judged") or {}).get("verdict"),
            **drawn.get(key, {}),
        }
        yield report.bare_row(figures) if hide else figures

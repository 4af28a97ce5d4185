"""Eleven models' published accuracies, found again from their completions.

The benchmark's own reference answers are used: the completions' ``gold`` column is damaged in some
rows. Every verdict that differs from the published one is printed, for a person to judge.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evaluator import benchmarks
from evaluator.benchmarks.files import read_problems
from evaluator.graders.extraction import detect_thinking
from evaluator.graders.pool import GradeRequest, GraderPool
from evaluator.protocol import GradingPolicy
from evaluator.records import Completion, Outcome, Verdict

DATA = Path(__file__).parents[3] / "shared" / "data"
pytestmark = pytest.mark.shared_data


@pytest.fixture(scope="module")
def pool() -> Iterator[GraderPool]:
    with GraderPool(jobs=2) as started:
        yield started


def _grade(
    pool: GraderPool, benchmark: str, problems_file: str, completions_file: str
) -> dict[str, list[tuple[dict[str, Any], str, Verdict]]]:
    """(row, reference answer, verdict) of every completion, by model."""
    problems = read_problems(DATA / "benchmarks" / problems_file, benchmark)
    answers = {problem.id: problem.answer for problem in problems}
    by_model: dict[str, list[dict[str, Any]]] = defaultdict(list)
    with gzip.open(DATA / "completions" / completions_file, "rt") as file:
        for row in map(json.loads, file):
            by_model[row["model"]].append(row)
    graded = {}
    for model, rows in by_model.items():
        thinking = detect_thinking(
            Completion(row["problem_id"], row["sample"], row["completion"]) for row in rows
        )
        requests = [
            GradeRequest(
                kind=benchmarks.get(benchmark).grader,
                gold=answers[row["problem_id"]],
                completion=Completion(row["problem_id"], row["sample"], row["completion"]),
                thinking=thinking,
                policy=GradingPolicy(),
            )
            for row in rows
        ]
        verdicts = list(pool.grade(requests))
        graded[model] = [
            (row, answers[row["problem_id"]], verdict)
            for row, verdict in zip(rows, verdicts, strict=True)
        ]
    return graded


def _differences(rows: list[tuple[dict[str, Any], str, Verdict]]) -> str:
    """One line for each verdict that differs from the published one."""
    return "\n".join(
        f"  {row['problem_id']}: reference {gold!r}, ours {verdict.answer!r} {verdict.outcome}, "
        f"published {row['published_pred']!r} {row['published_verdict']}"
        for row, gold, verdict in rows
        if (verdict.outcome is Outcome.CORRECT) != row["published_verdict"]
    )


@pytest.mark.parametrize(
    ("benchmark", "problems_file", "completions_file", "models", "size", "tolerance"),
    [
        # one problem of 30, and 1.0 point of 500
        ("aime_2024", "aime2024.jsonl", "skythought_aime24.jsonl.gz", 11, 30, 1),
        ("math_500", "math500.jsonl", "skythought_math500.jsonl.gz", 3, 500, 5),
    ],
)
def test_published_accuracies(
    pool: GraderPool,
    benchmark: str,
    problems_file: str,
    completions_file: str,
    models: int,
    size: int,
    tolerance: int,
) -> None:
    graded = _grade(pool, benchmark, problems_file, completions_file)
    assert len(graded) == models
    failures = []
    for model, rows in graded.items():
        assert len(rows) == size
        outcomes = Counter(verdict.outcome for _, _, verdict in rows)
        assert not any(outcomes[outcome] for outcome in Outcome if outcome.is_error)
        ours = outcomes[Outcome.CORRECT]
        published = sum(row["published_verdict"] for row, _, _ in rows)
        summary = f"{benchmark}, {model}: {ours} of {size} correct, published {published}"
        differences = _differences(rows)
        print(summary, differences, sep="\n")
        if abs(ours - published) > tolerance:
            failures.append(f"{summary}\n{differences}")
    assert not failures, "\n".join(failures)

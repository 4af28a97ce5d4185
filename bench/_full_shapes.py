"""What evaluations of a full installation look like: outcomes drawn once, then turned.

To aggregate 20,000 evaluations would take a quarter of an hour. So a few dozen are drawn for each
benchmark and n, and an evaluation is one of them with its problems shifted by a multiple of the
period in which subjects, levels and answers repeat: every figure over all problems stays what
``evaluator.metrics.aggregate`` made it, while no two evaluations agree problem by problem.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from evaluator.metrics import aggregate
from evaluator.records import Outcome, Problem

ABILITIES = 24  # evaluations drawn for each benchmark and n, from weak to strong
PERIOD = 6  # problems, after which subject, level and answer repeat


@dataclass(frozen=True)
class Set:
    """A benchmark's problems."""

    name: str
    title: str
    grader: str
    subjects: tuple[str, ...]
    levels: int
    count: int

    @cached_property
    def problems(self) -> list[Problem]:
        """Their texts are as long as real ones."""
        return [
            Problem(
                id=f"{self.name}-{i:03d}",
                problem=f"Problem {i} of {self.title}. Let $x_{{{i}}}$ be a positive integer with "
                "$x^2 - 5x + 6 = 0$ whose digits sum to a prime number. "
                "Find the remainder when the sum of all such integers is divided by 1000. " * 2,
                answer=str(100 + i % PERIOD),
                subject=self.subjects[i % len(self.subjects)] if self.subjects else None,
                level=str(1 + i % self.levels) if self.levels else None,
            )
            for i in range(self.count)
        ]


SETS = (
    Set("aime_2024", "AIME 2024", "integer", (), 0, 30),
    Set("aime_2025", "AIME 2025", "integer", ("I", "II"), 0, 30),
    Set("math_500", "MATH-500", "math", ("Algebra", "Geometry", "Number Theory"), 3, 498),
    Set("gpqa_diamond", "GPQA Diamond", "choice", ("Physics", "Chemistry", "Biology"), 0, 198),
    Set("gsm8k", "GSM8K", "math", (), 0, 240),
    Set("arithmetic", "Arithmetic", "integer", ("sums", "larger sums"), 3, 60),
)
# What is measured of every checkpoint: benchmark, preset, n. Together some 2,480 completions.
PLAN = (
    ("aime_2024", "r1", 16), ("aime_2025", "r1", 8), ("math_500", "r1", 1),
    ("gpqa_diamond", "r1", 1), ("gsm8k", "greedy", 1), ("arithmetic", "quick", 4),
    ("aime_2024", "quick", 4), ("aime_2025", "greedy", 1), ("gpqa_diamond", "quick", 2),
    ("arithmetic", "greedy", 1),
)  # fmt: skip
SOME = 12  # of so many checkpoints one is measured with n = 64, and on MATH-500 with n = 4


@dataclass(frozen=True)
class Sample:
    """One drawn and graded completion."""

    position: int  # of its problem
    sample: int
    outcome: Outcome
    answer: str | None
    tokens: int

    @property
    def reason(self) -> str:
        """Why it was graded so."""
        return {Outcome.CORRECT: "equal values", Outcome.WRONG: "other values"}.get(
            self.outcome, "no answer in the part after the thinking"
        )

    @property
    def finish(self) -> str:
        """How it ended."""
        return "length" if self.outcome is Outcome.TRUNCATED else "stop"


@dataclass(frozen=True)
class Shape:
    """One evaluation's samples, in order, and what they amount to."""

    problems: Sequence[Problem]
    samples: Sequence[Sample]
    metrics: dict[str, Any]

    def turned(self, by: int, hashes: dict[str, Any]) -> str:
        """The metrics as JSON, with the problems shifted by ``by`` periods."""
        rows = self.metrics["per_problem"]
        shift = by * PERIOD % len(rows)
        moved = [
            {**row, "id": problem.id}
            for problem, row in zip(self.problems, rows[-shift:] + rows[:-shift], strict=True)
        ]
        return json.dumps({**self.metrics, **hashes, "per_problem": moved})

    def position(self, sample: Sample, by: int) -> int:
        """Where a sample's problem lies after the shift."""
        return (sample.position + by * PERIOD) % len(self.problems)


def draw(chosen: Set, n: int, ability: float, seed: int) -> Shape:
    """One evaluation of a model that is right with about this chance, more or less by problem."""
    rng = random.Random(seed)
    samples = []
    for place, problem in enumerate(chosen.problems):
        chance = min(max(rng.gauss(ability, 0.25), 0.0), 1.0)
        for sample in range(n):
            lot = rng.random()
            outcome = Outcome.CORRECT
            answer: str | None = problem.answer
            if lot > chance:
                kinds = (Outcome.WRONG,) * 8 + (Outcome.TRUNCATED, Outcome.NO_ANSWER)
                outcome = rng.choice(kinds)
                answer = str(rng.randint(200, 206)) if outcome is Outcome.WRONG else None
            tokens = int(rng.lognormvariate(8.0, 0.6) * (1.4 if lot > chance else 1))
            samples.append(Sample(place, sample, outcome, answer, min(tokens, 32_768)))
    rows = [
        {
            "problem_id": chosen.problems[each.position].id, "sample": each.sample,
            "outcome": each.outcome, "answer": each.answer, "completion_tokens": each.tokens,
        }
        for each in samples
    ]  # fmt: skip
    metrics = aggregate(
        chosen.problems, rows, benchmark=chosen.name, grader=f"{chosen.grader}/1", samples=n,
        measurement_hash="", run_fingerprint="",
        equal=lambda pairs: [one == other for one, other in pairs],
    )  # fmt: skip
    return Shape(chosen.problems, samples, metrics)

"""Outcomes that a person disputes: kept beside the grader's, and the score with them.

A dispute never replaces a verdict. :func:`rescore` gives the metrics as they would be if every
dispute were right, from the same function that gave the grader's; both are shown.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from evaluator import metrics as figures
from evaluator.errors import InputError
from evaluator.metrics import Equal
from evaluator.records import Outcome, Problem
from evaluator.store import Row

SCHEMA = "retort/dispute/1"
CLAIMS = (Outcome.CORRECT, Outcome.WRONG)
Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Dispute:
    """One person's word on one sample. ``claim`` is what it should have counted as."""

    problem_id: str
    sample: int
    claim: Outcome
    reason: str
    by: str
    at: str  # ISO 8601, with its zone
    outcome: Outcome  # the grader's, when it was disputed
    answer: str | None = None

    @property
    def key(self) -> Key:
        """(problem id, sample)."""
        return (self.problem_id, self.sample)

    def to_json(self) -> dict[str, Any]:
        """The row as plain JSON values."""
        return {
            "schema": SCHEMA,
            "problem_id": self.problem_id,
            "sample": self.sample,
            "claim": str(self.claim),
            "reason": self.reason,
            "by": self.by,
            "at": self.at,
            "outcome": str(self.outcome),
            "answer": self.answer,
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Build a dispute from :meth:`to_json`'s form. Raises KeyError or ValueError."""
        claim = Outcome(row["claim"])
        if claim not in CLAIMS:
            raise ValueError(f"claim {str(claim)!r} is neither correct nor wrong")
        return cls(
            problem_id=str(row["problem_id"]),
            sample=int(row["sample"]),
            claim=claim,
            reason=str(row["reason"]),
            by=str(row["by"]),
            at=str(row["at"]),
            outcome=Outcome(row["outcome"]),
            answer=row.get("answer"),
        )


def read(path: Path) -> list[Dispute]:
    """The disputes in a JSONL file. Raises InputError naming the line that cannot be used."""
    try:
        lines = path.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"disputes: {path} cannot be read ({error}).") from error
    found: dict[Key, Dispute] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            dispute = Dispute.from_json(json.loads(line))
        except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                f"disputes: {path.name}, line {number} is no dispute ({error!r}); take the file "
                "that the evaluation's page exports."
            ) from error
        if dispute.key in found:
            raise InputError(
                f"disputes: {path.name}, line {number}: sample {dispute.sample} of problem "
                f"{dispute.problem_id!r} is disputed a second time; keep one of the two."
            )
        found[dispute.key] = dispute
    return list(found.values())


def applied(rows: Iterable[Row], disputes: Sequence[Dispute]) -> list[Row]:
    """``rows`` with every disputed outcome as it is claimed to be; the others as they are.

    Raises InputError for a dispute of a sample that has no verdict to dispute.
    """
    claims = {dispute.key: dispute.claim for dispute in disputes}
    changed: list[Row] = []
    for row in rows:
        claim = claims.get((row["problem_id"], row["sample"]))
        if claim is not None and not Outcome(row["outcome"]).is_error:
            del claims[row["problem_id"], row["sample"]]
            row = {**row, "outcome": str(claim)}  # noqa: PLW2901 - the copy stands in for it
        changed.append(row)
    if claims:
        problem_id, sample = next(iter(claims))
        raise InputError(
            f"disputes: sample {sample} of problem {problem_id!r} has no verdict in this run; "
            "take the disputes of the same evaluation."
        )
    return changed


def rescore(
    metrics: Mapping[str, Any],
    problems: Sequence[Problem],
    rows: Iterable[Row],
    disputes: Sequence[Dispute],
    *,
    equal: Equal | None,
) -> dict[str, Any]:
    """The metrics of graded ``rows`` if every dispute were right (``evaluator.metrics``).

    What is not disputed stays as graded, samples with the same answer as a disputed one included:
    votes go by it.

    ``metrics`` are the grader's of the same rows; ``equal`` as in :func:`metrics.aggregate`.
    """
    return figures.aggregate(
        problems,
        applied(rows, disputes),
        benchmark=metrics["benchmark"],
        grader=metrics["grader"],
        samples=metrics["samples"],
        measurement_hash=metrics["measurement_hash"],
        run_fingerprint=metrics["run_fingerprint"],
        equal=equal,
    )


def golden_case(
    dispute: Dispute, *, kind: str, gold: str, policy: Mapping[str, Any]
) -> dict[str, Any]:
    """A dispute as a golden grading case, in the form of ``tests/golden/grading.jsonl``.

    ``prediction`` is None where no answer was found: then the fault lies in the extraction.
    """
    return {
        "kind": kind,
        "gold": gold,
        "prediction": dispute.answer,
        "equal": dispute.claim is Outcome.CORRECT,
        "policy": dict(policy),
        "about": dispute.reason,
        **{k: v for k, v in dispute.to_json().items() if k not in ("answer", "reason")},
    }

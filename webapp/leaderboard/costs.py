"""What the sides of a comparison took to make, and what a point gained over the baseline took."""

from __future__ import annotations

from dataclasses import dataclass

from webapp.core.models import User
from webapp.leaderboard.compare import Comparison, Score, Side
from webapp.runs import ledger
from webapp.runs.ledger import CostPerPoint, StudentCost


@dataclass(frozen=True, slots=True)
class SideCost:
    """One side's cost; ``per_point`` is None without a gain told from chance, or a cost."""

    side: Side
    cost: StudentCost
    per_point: CostPerPoint | None


def costs(user: User, found: Comparison) -> list[SideCost]:
    """A row for each side whose checkpoint took anything in runs that the person sees; two queries.

    A point is one of pass@1 on the shared problems. Sides that were measured otherwise than the
    baseline, or whose difference from it is not told from chance, gained nothing to divide by.
    """
    checkpoints = {
        side.evaluation.checkpoint.pk: side.evaluation.checkpoint
        for side in found.sides
        if side.evaluation.checkpoint is not None
    }
    students = ledger.of_students(checkpoints.values(), ledger.seen_entries(user))
    taken = {each.checkpoint.pk: each for each in students}
    rows = []
    for score in found.scores:
        cost = taken.get(score.side.evaluation.checkpoint_id or 0)
        if cost is not None and cost.total.leases:
            rows.append(SideCost(score.side, cost, _per_point(found, score, cost)))
    return rows


def _per_point(found: Comparison, score: Score, cost: StudentCost) -> CostPerPoint | None:
    hashes = {each.evaluation.measurement_hash for each in (found.baseline, score.side)}
    if score.contrast is None or len(hashes) > 1 or not cost.making.leases:
        return None
    if not score.contrast.significant:
        return None
    points = 100 * score.contrast.paired.difference
    return CostPerPoint(points, cost.making) if points > 0 else None

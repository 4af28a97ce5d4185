"""In what two evaluations were measured differently, as far as their rows know."""

from __future__ import annotations

from typing import Any

from evaluator import passport
from webapp.runs.models import Evaluation


def differing(one: Evaluation, other: Evaluation) -> list[str] | None:
    """Measurement fields in which they differ; None where their measurement hashes are equal.

    Empty where the hashes differ and the rows do not know in what.
    """
    if one.measurement_hash == other.measurement_hash:
        return None
    return [each.field for each in passport.differences(_measurement(one), _measurement(other))]


def run_differing(one: Evaluation, other: Evaluation) -> list[str]:
    """What else differs: n, seed, engine, hardware (the run fingerprint's fields)."""
    if one.run_fingerprint == other.run_fingerprint:
        return []
    return [each.field for each in passport.differences(_run(one), _run(other))]


def _measurement(evaluation: Evaluation) -> dict[str, Any]:
    """What the measurement hash was made of."""
    known = (evaluation.metrics or {}).get("measurement")
    if known:
        return dict(known)
    names = ("prompt", "system_prompt", "thinking", "policy", "sampling")
    held = {name: evaluation.protocol.get(name) for name in names}
    return {name: value for name, value in held.items() if value is not None} | {
        "problems": evaluation.benchmark.content_hash
    }


def _run(evaluation: Evaluation) -> dict[str, Any]:
    known = (evaluation.metrics or {}).get("run")
    return dict(known) if known else {"samples": evaluation.samples, "engine": evaluation.engine}

"""In what two evaluations were measured differently, as far as their rows know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evaluator import passport
from webapp.runs.models import Evaluation


def differing(one: Evaluation, other: Evaluation) -> list[str] | None:
    """Measurement fields in which they differ; None where their measurement hashes are equal.

    Empty where the hashes differ and the rows do not know in what.
    """
    if one.measurement_hash == other.measurement_hash:
        return None
    return names(_measurement(one), _measurement(other))


def names(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The fields, in dotted form, of which both hold a value, and not the same one."""
    return [each.field for each in passport.differences(one, other)]


def measurement(
    known: Mapping[str, Any] | None, protocol: Mapping[str, Any], problems: str
) -> dict[str, Any]:
    """What a measurement hash was made of: as the metrics know it, else as the protocol does."""
    if known:
        return dict(known)
    fields = ("prompt", "system_prompt", "thinking", "policy", "sampling")
    held = {name: protocol.get(name) for name in fields}
    return {name: value for name, value in held.items() if value is not None} | {
        "problems": problems
    }


def run_differing(one: Evaluation, other: Evaluation) -> list[str]:
    """What else differs: n, seed, engine, hardware (the run fingerprint's fields)."""
    if one.run_fingerprint == other.run_fingerprint:
        return []
    return names(_run(one), _run(other))


def _measurement(evaluation: Evaluation) -> dict[str, Any]:
    known = (evaluation.metrics or {}).get("measurement")
    return measurement(known, evaluation.protocol, evaluation.benchmark.content_hash)


def _run(evaluation: Evaluation) -> dict[str, Any]:
    known = (evaluation.metrics or {}).get("run")
    return dict(known) if known else {"samples": evaluation.samples, "engine": evaluation.engine}

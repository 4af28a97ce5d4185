"""Traces with the reason for which each must be dropped, or none: golden data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distiller import filters
from distiller.filters import Context, Trace
from distiller.recipe import DEFAULT_FILTERS, FilterChoice
from evaluator.graders.pool import GraderPool
from evaluator.protocol import Thinking
from evaluator.records import Completion, FinishReason, Problem

GOLDEN = Path(__file__).parents[1] / "golden" / "filters"
CASES = [json.loads(line) for line in (GOLDEN / "traces.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def pool():
    with GraderPool(1) as made:
        yield made


def first_reason(case: dict[str, Any], pool: GraderPool) -> str | None:
    """The reason of the first filter that drops the case's trace."""
    finish = FinishReason(case.get("finish_reason", "unknown"))
    completion = Completion(case["id"], 0, case["completion"], finish)
    trace = Trace(Problem(case["id"], case["problem"], case["answer"]), completion)
    given = case.get("recipe", {}).get("filters")
    choices = DEFAULT_FILTERS if given is None else [FilterChoice(**choice) for choice in given]
    context = Context(Thinking(), pool=pool, drawn=[trace])
    reasons = (rule.reasons([trace], context)[0] for rule in filters.create(choices))
    return next((reason for reason in reasons if reason is not None), None)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_a_trace_is_dropped_for_its_reason_alone(case: dict[str, Any], pool: GraderPool) -> None:
    assert first_reason(case, pool) == case["reason"]

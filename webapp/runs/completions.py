"""Completions' rows: copied in from the segments that come, and given their verdicts.

Each function belongs in the transaction in which a lease was found to hold.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from django.db import connection

from webapp.benchmarks.models import Problem
from webapp.core.text import storable, storable_json
from webapp.runs import redraw
from webapp.runs.models import Evaluation, Segment

# COPY knows nothing of rows that are there already: so it fills a table of this connection's own,
# which the transaction's end empties.
_STAGING = """
CREATE TEMPORARY TABLE IF NOT EXISTS runs_completion_coming (
    problem_id bigint, sample int, finish_reason text, prompt_tokens int, completion_tokens int,
    "offset" bigint
) ON COMMIT DELETE ROWS
"""
_COPY = "COPY runs_completion_coming FROM STDIN"
# Of two rows with one key in a segment the first counts.
_TAKE = """
INSERT INTO runs_completion (evaluation_id, segment_id, problem_id, sample, finish_reason,
                             prompt_tokens, completion_tokens, "offset", outcome, reason)
SELECT %s, %s, problem_id, sample, finish_reason, prompt_tokens, completion_tokens, "offset", '', ''
FROM runs_completion_coming ORDER BY "offset"
ON CONFLICT DO NOTHING
"""
_EMPTY = "DELETE FROM runs_completion_coming"  # the transaction may take in another segment


def take(
    evaluation: Evaluation, segment: Segment, content: Sequence[tuple[int, Mapping[str, Any]]]
) -> None:
    """One row for each (offset, row) of a segment; a key that is there stays, unless it errored.

    Raises KeyError for a problem that is none of the benchmark's.
    """
    named = {row["problem_id"] for _, row in content}
    problems = dict(
        Problem.objects.filter(
            benchmark_id=evaluation.benchmark_id, problem_id__in=named
        ).values_list("problem_id", "pk")
    )
    redraw.drop_superseded(evaluation.pk, problems, (row for _, row in content))
    with connection.cursor() as cursor:
        cursor.execute(_STAGING)
        with cursor.copy(_COPY) as sink:
            for offset, row in content:
                sink.write_row(
                    (
                        problems[row["problem_id"]], row["sample"], row["finish_reason"],
                        row["prompt_tokens"], row["completion_tokens"], offset,
                    )
                )  # fmt: skip
        cursor.execute(_TAKE, [evaluation.pk, segment.pk])
        cursor.execute(_EMPTY)


_SET_OUTCOMES = """
UPDATE runs_completion AS c
SET outcome = v.outcome, answer = v.answer, reason = v.reason, judged = v.judged::jsonb
FROM unnest(%s::text[], %s::int[], %s::text[], %s::text[], %s::text[], %s::text[])
     AS v (problem_id, sample, outcome, answer, reason, judged),
     benchmarks_problem AS p, runs_evaluation AS e
WHERE e.id = %s AND c.evaluation_id = e.id AND p.benchmark_id = e.benchmark_id
  AND p.problem_id = v.problem_id AND c.problem_id = p.id AND c.sample = v.sample
"""


def set_outcomes(evaluation_id: int | None, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write verdicts into the rows of their completions."""
    columns = [
        [row["problem_id"] for row in rows],
        [row["sample"] for row in rows],
        [row["outcome"] for row in rows],
        [None if row["answer"] is None else storable(row["answer"]) for row in rows],
        [storable(row["reason"]) for row in rows],
        [
            None if row.get("judged") is None else json.dumps(storable_json(row["judged"]))
            for row in rows
        ],
    ]
    with connection.cursor() as cursor:
        cursor.execute(_SET_OUTCOMES, [*columns, evaluation_id])

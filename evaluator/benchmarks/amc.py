"""AMC 2023: the 40 problems of AMC 12A and 12B 2023 that were put with an integer answer.

Source: ``math-ai/amc23`` on the hub at the pinned revision (problems © MAA), or a local file; the
hash is over the reference answers. AMC itself is multiple choice; the set drops the options and
rewords the question where needed, so that a number is asked for. The id names the contest
(``amc2023-12A-01``). Metric: pass@1[avg-of-64] *(ours: 40 problems need what AIME needs)*. How we
know that the number is right: every reference answer is read back as an integer by the tests, and
no two published forms of a row give different problems.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from evaluator.benchmarks.spec import BOXED_PROMPT, BenchmarkSpec, HubSource

_URL = re.compile(r"2023_AMC_(?P<paper>12[AB])_Problems/Problem_(?P<number>\d{1,2})")


def _identify(row: Mapping[str, Any]) -> str | None:
    match = _URL.search(str(row.get("url") or ""))
    return None if match is None else f"amc2023-{match['paper']}-{int(match['number']):02d}"


SPEC = BenchmarkSpec(
    name="amc_2023",
    title="AMC 2023",
    grader="integer",
    prompt=BOXED_PROMPT,
    hub=HubSource(
        "math-ai/amc23",
        "test-00000-of-00001.parquet",
        "dc370b5df0ddacdfbb30cf90c8f9f4f7d55fe5f34f2c5cf9b3c32381bb5db848",
        revision="80815d37005feb82cd7f8fbc6901d5d3eff43057",
    ),
    problem_count=40,
    identify=_identify,
)

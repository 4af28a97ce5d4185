"""AIME 2024 and 2025: 30 problems each, answers are integers from 0 to 999.

Source: ``HuggingFaceH4/aime_2024`` and ``yentinglin/aime_2025`` on the hub (problems © MAA), or a
local file. Both put "025" where the number 25 is meant, and number their problems by row; here the
answer is the number and the id names the contest (``aime2024-I-01``), so that every published form
gives the same content hash. Metric: pass@1[avg-of-64] and cons@64 (DeepSeek-R1, tables 4–6).
How we know that the number is right: eleven models' published verdicts on AIME 2024 are graded
again in tests/evaluator/test_real_completions.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from evaluator.benchmarks.spec import BOXED_PROMPT, BenchmarkSpec, HubSource

_URL = re.compile(r"(?P<year>\d{4})_AIME_(?P<paper>I{1,2})_Problems/Problem_(?P<number>\d{1,2})")
_SOURCE_ID = re.compile(r"(?P<paper>I{1,2})-(?P<number>\d{1,2})")


def _identify(row: Mapping[str, Any], year: str) -> str | None:
    """``aime2024-I-01`` from the row's address or its contest number, if it has either."""
    match = _URL.search(str(row.get("url") or ""))
    if match is None or match["year"] != year:
        match = _SOURCE_ID.fullmatch(str(row.get("src_id") or ""))
    if match is None:
        return None
    return f"aime{year}-{match['paper']}-{int(match['number']):02d}"


AIME_2024 = BenchmarkSpec(
    name="aime_2024",
    title="AIME 2024",
    grader="integer",
    prompt=BOXED_PROMPT,
    hub=HubSource(
        "HuggingFaceH4/aime_2024",
        "data/train-00000-of-00001.parquet",
        "b1f0c9e511c1715c0941b0c90aa91d990b830bfaf411a3a41b3f339e5c2f6251",
    ),
    problem_count=30,
    identify=lambda row: _identify(row, "2024"),
)

AIME_2025 = BenchmarkSpec(
    name="aime_2025",
    title="AIME 2025",
    grader="integer",
    prompt=BOXED_PROMPT,
    hub=HubSource(
        "yentinglin/aime_2025",
        "data/train-00000-of-00001.parquet",
        "864d704745e4ec6b9e6d4b07a89220db73a5a43fbc036a714a00b597a8a622b2",
    ),
    problem_count=30,
    identify=lambda row: _identify(row, "2025"),
)

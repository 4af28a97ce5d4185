"""AIME 2024, 2025 and, as a prompt set, 1983–2023; answers are integers from 0 to 999.

Source: ``HuggingFaceH4/aime_2024`` and ``yentinglin/aime_2025`` on the hub, 30 problems each, at
the pinned revisions (problems © MAA), or a local file; the hash below is over the reference
answers. Both put "025" where the number 25 is meant, and number their problems by row; here the
answer is the number and the id names the contest (``aime2024-I-01``), so that every published form
gives the same content hash. Metric: pass@1[avg-of-64] and cons@64 (DeepSeek-R1, tables 4–6).
How we know that the number is right: eleven models' published verdicts on AIME 2024 are graded
again in tests/evaluator/test_real_completions.py.

AIME 1983–2023 (975 problems; the file ``aime.json`` of rllm's training data, MIT, ids by year) is
for trace generation only: later contests are what is measured, and these were seen by everyone.
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
        revision="2fe88a2f1091d5048c0f36abc874fb997b3dd99a",
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
        "data/train-00000-of-00001-243207c6c994e1bd.parquet",
        "864d704745e4ec6b9e6d4b07a89220db73a5a43fbc036a714a00b597a8a622b2",
        revision="6f71d77b0b89b9dabe07ab466c51df33f514df7f",
    ),
    problem_count=30,
    identify=lambda row: _identify(row, "2025"),
)

AIME_1983_2023 = BenchmarkSpec(
    name="aime_1983_2023",
    title="AIME 1983–2023",
    grader="integer",
    prompt=BOXED_PROMPT,
    hub=None,
    problem_count=975,
    answers_hash="08762b4249a90777520397b10e87eeed4f29c736722d9adcfac9fce891ec2113",
    prompts_only=True,
)

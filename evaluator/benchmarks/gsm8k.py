"""GSM8K: the 1,319 test problems of grade-school mathematics (Cobbe et al. 2021).

Source: ``openai/gsm8k``, configuration ``main``, at the pinned revision, or a local file; MIT. The
published answer is a worked solution that ends in ``#### n``; the reference answer is that number.
Rows have no ids, so an id is derived from the content. Metric: pass@1. How we know that the number
is right: every reference answer is read back as a number in tests/evaluator/test_benchmarks.py.
"""

from __future__ import annotations

from evaluator.benchmarks.spec import BOXED_PROMPT, BenchmarkSpec, HubSource
from evaluator.errors import InputError


def _final_number(answer: str) -> str:
    """The number after ``####``; an answer without that mark must be a number already."""
    number = answer.rpartition("####")[2].strip().replace(",", "")
    if not number.removeprefix("-").replace(".", "", 1).isdecimal():
        raise InputError("no number stands after '####'")
    return number


SPEC = BenchmarkSpec(
    name="gsm8k",
    title="GSM8K",
    grader="math",
    prompt=BOXED_PROMPT,
    hub=HubSource(
        "openai/gsm8k",
        "main/test-00000-of-00001.parquet",
        "1fd593fe2a621b080adabae98e31315046372f9a8fcba7d0a8f90f9a95f8da48",
        revision="740312add88f781978c0658806c59bc2815b9866",
    ),
    problem_count=1319,
    answer=_final_number,
)

"""GPQA-Diamond: 198 graduate-level multiple-choice questions (Rein et al. 2023).

Source: ``Idavidrein/gpqa`` on the hub at the pinned revision (gated: a token in HF_TOKEN whose
owner was granted access), the same ``gpqa_diamond.csv`` as a local file, or the official encrypted
``dataset.zip`` with its password in the environment variable GPQA_PASSWORD; the zip's table and the
hub's have the same 1,373,492 bytes. CC BY 4.0. Its authors ask that examples not be put in the
open: no error message, log or report quotes them (``private``).

The hash is over the texts of the right options. A problem keeps its options in alphabetical order,
which says nothing about the answer; each sample shows them in an order of its own
(``choice_order``), drawn from a seed per problem and sample and stored. Metric: pass@1[avg-of-8].
The prompt is that of OpenAI's simple-evals, which the R1 paper uses. How we know that the number is
right: a model that always says one letter scores a quarter, whichever letter it is, and one that
knows the options scores all (tests/evaluator/test_benchmarks_choice.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evaluator.benchmarks.choice_order import LETTERS
from evaluator.benchmarks.spec import Archive, BenchmarkSpec, HubSource
from evaluator.errors import InputError
from evaluator.records import Problem

PROMPT = (
    "Answer the following multiple choice question. The last line of your response should be of "
    "the following format: 'Answer: $LETTER' (without quotes) where LETTER is one of ABCD. Think "
    "step by step before answering.\n\n{problem}"
)
_RIGHT = "Correct Answer"
_WRONG = tuple(f"Incorrect Answer {number}" for number in (1, 2, 3))


def _problem(row: Mapping[str, Any]) -> Problem | None:
    """A problem from a row of the published table; None for rows of another form."""
    if _RIGHT not in row:
        return None
    texts = {}
    for column in ("Record ID", "Question", _RIGHT, *_WRONG):
        value = row.get(column)
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"{column}: missing or blank; get the published file.")
        texts[column] = value.strip().replace("\r\n", "\n")
    options = sorted(texts[column] for column in (_RIGHT, *_WRONG))
    return Problem(
        id=texts["Record ID"],
        problem=texts["Question"],
        answer=LETTERS[options.index(texts[_RIGHT])],
        subject=str(row.get("High-level domain") or "").strip() or None,
        options=tuple(options),
    )


SPEC = BenchmarkSpec(
    name="gpqa_diamond",
    title="GPQA-Diamond",
    grader="choice",
    prompt=PROMPT,
    hub=HubSource(
        "Idavidrein/gpqa",
        "gpqa_diamond.csv",
        "b524857e721363d0a9fbd4a0ec239f1281be10686404ec7fee68070e20caab5b",
        revision="633f5ee89ab8ad4522a9f850766b73f62147ffdd",
    ),
    problem_count=198,
    problem=_problem,
    archive=Archive("dataset/gpqa_diamond.csv", "GPQA_PASSWORD"),
    private=True,
)

"""MATH-500: 500 problems of the MATH test split (Lightman et al. 2023, prm800k's split).

Source: ``HuggingFaceH4/MATH-500``, file ``test.jsonl``, or a local file; MIT. Metric: pass@1 with
mathematical equivalence (PROTOCOLS §3). How we know that the number is right: three models'
published verdicts, 1,500 in all, are graded again in tests/evaluator/test_real_completions.py.
"""

from __future__ import annotations

from evaluator.benchmarks.spec import BOXED_PROMPT, BenchmarkSpec, HubSource

SPEC = BenchmarkSpec(
    name="math_500",
    title="MATH-500",
    grader="math",
    prompt=BOXED_PROMPT,
    hub=HubSource(
        "HuggingFaceH4/MATH-500",
        "test.jsonl",
        "ddc0ae19c33f2969e41a86c4c012fc5bd48f35b567d714e8032aff25353b3cf6",
        revision="ff5b20257d8185524591543f8ff5993951537bb8",
    ),
    problem_count=500,
)

"""Custom: a person's own problems, from a file.

Source: the file that is given; its content hash is its version and enters the measurement hash.
Rows are ``{id?, problem, answer, subject?, level?}``. Metric: pass@1 and cons@k with mathematical
equivalence (PROTOCOLS §3), which decides integers and texts too. The number is as right as the
file's answers.
"""

from __future__ import annotations

from evaluator.benchmarks.spec import BOXED_PROMPT, BenchmarkSpec

SPEC = BenchmarkSpec(
    name="custom",
    title="Custom",
    grader="math",
    prompt=BOXED_PROMPT,
    hub=None,
    problem_count=None,
    repeats=True,
)

"""Real benchmarks and real completions, through the commands."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"

pytestmark = pytest.mark.shared_data


def manage(environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("name", "file", "count"),
    [
        ("aime_2024", "aime2024.jsonl", 30),
        ("aime_2025", "aime2025.jsonl", 30),
        ("math_500", "math500.jsonl", 500),
    ],
)
def test_benchmarks_are_installed_once(
    process_environment: dict[str, str], name: str, file: str, count: int
) -> None:
    from webapp.benchmarks.models import Benchmark

    path = str(DATA / "benchmarks" / file)
    said = {manage(process_environment, "import_benchmark", name, path) for _ in range(2)}
    assert len(said) == 1
    benchmark = Benchmark.objects.get(name=name)
    assert benchmark.problems.count() == benchmark.problem_count == count


@pytest.mark.parametrize("model", ["Qwen/Qwen2.5-Math-7B", "Sky-T1-math-wrong-5K-14B"])
def test_real_completions_get_the_published_verdicts(
    process_environment: dict[str, str], admin: Any, tmp_path: Path, model: str
) -> None:
    from webapp.runs.models import Evaluation

    with gzip.open(DATA / "completions" / "skythought_aime24.jsonl.gz", "rt") as lines:
        rows = [row for row in map(json.loads, lines) if row["model"] == model]
    assert len(rows) == 30
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    aime = str(DATA / "benchmarks" / "aime2024.jsonl")
    manage(process_environment, "import_benchmark", "aime_2024", aime)
    manage(
        process_environment, "import_completions", str(path), "--benchmark", "aime_2024",
        "--checkpoint", model, "--owner", admin.username, "--wait",
    )  # fmt: skip
    evaluation = Evaluation.objects.get()
    assert evaluation.samples == 1
    published = sum(row["published_verdict"] for row in rows) / 30
    assert evaluation.pass_at_1 is not None
    assert abs(evaluation.pass_at_1 - published) <= 1 / 30 + 1e-9
    outcomes = evaluation.metrics["outcomes"]
    assert sum(outcomes.values()) == 30
    assert outcomes["grader_error"] == 0

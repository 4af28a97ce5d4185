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


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("benchmark", "problems", "completions", "models", "allowed"),
    [
        ("aime_2024", "aime2024.jsonl", "skythought_aime24.jsonl.gz", 11, 1 / 30),
        ("math_500", "math500.jsonl", "skythought_math500.jsonl.gz", 3, 0.01),
    ],
)
def test_real_completions_get_the_published_verdicts(
    process_environment: dict[str, str],
    admin: Any,
    benchmark: str,
    problems: str,
    completions: str,
    models: int,
    allowed: float,
) -> None:
    """Every model of the shared files, by one command, through the service and a real worker."""
    from webapp.runs.models import Evaluation

    file = DATA / "completions" / completions
    published: dict[str, list[bool]] = {}
    with gzip.open(file, "rt") as lines:
        for row in map(json.loads, lines):
            published.setdefault(row["model"], []).append(row["published_verdict"])
    manage(process_environment, "import_benchmark", benchmark, str(DATA / "benchmarks" / problems))
    manage(
        process_environment, "import_completions", str(file), "--benchmark", benchmark,
        "--every-model", "--owner", admin.username, "--wait",
    )  # fmt: skip
    evaluations = {e.checkpoint.name: e for e in Evaluation.objects.select_related("checkpoint")}
    assert len(evaluations) == models
    assert evaluations.keys() == published.keys()
    for model, verdicts in published.items():
        evaluation = evaluations[model]
        assert evaluation.pass_at_1 is not None, model
        assert abs(evaluation.pass_at_1 - sum(verdicts) / len(verdicts)) <= allowed + 1e-9, model
        outcomes = evaluation.metrics["outcomes"]
        assert sum(outcomes.values()) == len(verdicts)
        assert outcomes["grader_error"] == 0
        assert evaluation.protocol["drawn_elsewhere"]


def test_a_file_of_several_models_asks_whose(
    process_environment: dict[str, str], admin: Any
) -> None:
    from webapp.runs.models import Run

    aime = str(DATA / "benchmarks" / "aime2024.jsonl")
    manage(process_environment, "import_benchmark", "aime_2024", aime)
    file = str(DATA / "completions" / "skythought_aime24.jsonl.gz")
    for options, part in (
        (("--checkpoint", "someone"), "--every-model"),
        (("--model", "nobody"), "'nobody'"),
        (("--every-model", "--checkpoint", "someone"), "checkpoint"),
        ((), "--checkpoint"),
    ):
        done = subprocess.run(
            [
                sys.executable, "manage.py", "import_completions", file,
                "--benchmark", "aime_2024", "--owner", admin.username, *options,
            ],
            cwd=ROOT, env=process_environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 2, options
        assert part in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    assert not Run.objects.exists()

"""The whole main job, as a user runs it: `manage.py demo` in its own process and a fresh folder.

The checkpoints it trains are then used to hold vLLM against transformers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evaluator.benchmarks import arithmetic
from evaluator.store import Store

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


def environment(var: Path) -> dict[str, str]:
    own = ("DATABASE_URL", "CELERY_BROKER_URL", "DJANGO_SETTINGS_MODULE")
    kept = {name: value for name, value in os.environ.items() if name not in own}
    return kept | {"RETORT_VAR": str(var), "DEMO_SERVE": "0"}


def processes_under(var: Path) -> list[str]:
    """Command lines of live processes that name ``var`` in arguments or environment."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            command = (folder / "cmdline").read_bytes()
            text = command + (folder / "environ").read_bytes()
        except OSError:
            continue
        if str(var).encode() in text:
            found.append(command.replace(b"\0", b" ").decode(errors="replace"))
    return found


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    var = tmp_path_factory.mktemp("demo") / "var"
    done = subprocess.run(
        [sys.executable, "manage.py", "demo"],
        cwd=ROOT,
        env=environment(var),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    line = done.stdout.rstrip().splitlines()[-1]
    return var, json.loads(line)["demo"], done.stdout


def test_student_really_learns(demo: tuple[Path, dict[str, Any], str]) -> None:
    _, figures, _ = demo
    assert figures["base"]["pass@1"] < 0.05
    assert figures["student"]["pass@1"] >= 0.80
    # A vote may lose to a sample where the student is surely wrong, but not by much.
    assert figures["student"]["cons@16"] >= figures["student"]["pass@1"] - 0.02
    for role in ("base", "student", "teacher"):
        row = figures[role]
        assert 0 <= row["low"] <= row["pass@1"] <= row["high"] <= 1
    assert figures["seconds"] > 0


def test_report_and_password(demo: tuple[Path, dict[str, Any], str]) -> None:
    var, figures, output = demo
    report = Path(figures["report"])
    report = report if report.is_absolute() else ROOT / report
    assert report.is_relative_to(var)
    html = report.read_text()
    assert "pass@1[avg-of-16]" in html
    assert "cons@16" in html
    assert output.lower().count("password") == 1


def test_planted_contamination_is_found(demo: tuple[Path, dict[str, Any], str]) -> None:
    """The demo puts some of the benchmark's problems among its prompts; none may be trained on."""
    var, _, _ = demo
    (listed,) = (var / "files" / "runs").glob("*/*/*/contaminated.json")
    contaminated = json.loads(listed.read_text())["contaminated"]
    assert len(contaminated) >= 12
    ids = {row["problem_id"] for row in contaminated}
    kept = (listed.parent / "kept.jsonl").read_text().splitlines()
    assert kept
    assert not ids & {json.loads(row)["problem_id"] for row in kept}


def test_nothing_is_left_running(demo: tuple[Path, dict[str, Any], str]) -> None:
    var, _, _ = demo
    assert processes_under(var) == []


@pytest.mark.vllm
def test_vllm_agrees_with_transformers(
    demo: tuple[Path, dict[str, Any], str], tmp_path: Path
) -> None:
    """Greedy accuracy of the demo's teacher through both engines, on the same held-out problems."""
    var, _, _ = demo
    teacher = var / "demo" / "teacher"
    problems = arithmetic.generate(128, seed=77, terms=3)
    file = tmp_path / "problems.jsonl"
    file.write_text("".join(json.dumps(problem.to_json()) + "\n" for problem in problems))
    texts: dict[str, dict[tuple[str, int], str]] = {}
    scores: dict[str, float] = {}
    for engine in ("transformers", "vllm"):
        out = tmp_path / engine
        command = [
            sys.executable, "-m", "evaluator", "run", "--benchmark", "arithmetic",
            "--problems", str(file), "--engine", engine, "--model", str(teacher),
            "--protocol", "greedy", "--samples", "1", "--out", str(out),
        ]  # fmt: skip
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        scores[engine] = json.loads((out / "metrics.json").read_text())["pass@1"]["value"]
        rows = Store(out / "segments").rows()
        texts[engine] = {(row["problem_id"], row["sample"]): row["text"] for row in rows}
    same = sum(text == texts["vllm"][key] for key, text in texts["transformers"].items())
    assert same >= 0.95 * len(problems)
    assert abs(scores["vllm"] - scores["transformers"]) <= 0.03
    assert scores["vllm"] > 0.8

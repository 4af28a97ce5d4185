"""The command line as a person uses it: real processes, real files, real kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from evaluator.benchmarks.arithmetic import generate
from evaluator.records import completion_seed
from evaluator.store import SUFFIX, Store, read_segment

REPOSITORY = Path(__file__).parents[2]
SAMPLES = 4


def command(arguments: Sequence[object]) -> list[str]:
    return [sys.executable, "-m", "evaluator", *map(str, arguments)]


def evaluator(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(arguments),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "COLUMNS": "100"},
    )


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("problems") / "sums.jsonl"
    done = evaluator("arithmetic", "--count", 500, "--seed", 5, "--output", path)
    assert done.returncode == 0, done.stderr
    rows = read_rows(path)
    assert rows == [problem.to_json() for problem in generate(500, seed=5)]
    return path


@pytest.fixture(scope="module")
def arguments(
    problems: Path, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    protocol = tmp_path_factory.mktemp("protocol") / "protocol.json"
    protocol.write_text(
        json.dumps({
            "name": "short", "samples": SAMPLES, "seed": 11, "prompt": "{problem}",
            "sampling": {"temperature": 1.0, "max_tokens": 24},
        })
    )  # fmt: skip
    return [
        "run", "--benchmark", "arithmetic", "--problems", problems, "--engine", "transformers",
        "--model", tiny_checkpoint, "--protocol", protocol, "--jobs", 1, "--out",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def whole(arguments: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an unbroken run."""
    out = tmp_path_factory.mktemp("unbroken") / "run"
    done = evaluator(*arguments, out)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_run_goes_on_to_what_an_unbroken_one_gives(
    arguments: list[object], whole: Path, tmp_path: Path, ending: signal.Signals
) -> None:
    broken = tmp_path / "broken"
    process = subprocess.Popen(
        command([*arguments, broken]),
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not list((broken / "segments").glob(f"*{SUFFIX}")):  # the first rows are sealed
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(ending)
    _, err = process.communicate(timeout=60)
    sealed = Store(broken / "segments").keys()
    total = 500 * SAMPLES
    assert 0 < len(sealed) < total, "it should be stopped in mid-run"
    assert not (broken / "metrics.json").exists()
    if ending == signal.SIGINT:
        assert process.returncode == 130
        assert "interrupted; start it again to go on." in err
    resumed = evaluator(*arguments, broken)
    assert resumed.returncode == 0, resumed.stderr
    rows = [
        row for path in (broken / "segments").glob(f"*{SUFFIX}") for _, row in read_segment(path)
    ]
    assert len(rows) == total, "nothing is drawn twice"
    found = {(row["problem_id"], row["sample"]): row for row in rows}
    assert found == {
        (row["problem_id"], row["sample"]): row for row in Store(whole / "segments").rows()
    }
    assert len(found) == total
    for (problem_id, sample), row in found.items():
        assert row["seed"] == completion_seed(11, problem_id, sample)
    metrics = json.loads((broken / "metrics.json").read_text())
    assert metrics == json.loads((whole / "metrics.json").read_text())
    assert sum(metrics["outcomes"].values()) == total
    assert "pass@1[avg-of-4]" in resumed.stdout
    assert str(broken / "metrics.json") in resumed.stdout


def test_a_folder_is_one_measurement_and_its_report_opens(
    arguments: list[object], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    short = [*arguments[:-1], "--limit", 5, "--out"]
    assert evaluator(*short, out).returncode == 0
    other = evaluator(*short, out, "--samples", 2)
    assert other.returncode == 2
    assert "holds a run with another protocol; choose a new folder." in other.stderr
    page, data = tmp_path / "report.html", tmp_path / "report.json"
    for output in (page, data):
        made = evaluator("report", out, "--output", output)
        assert made.returncode == 0, made.stderr
    assert "pass@1[avg-of-4]" in page.read_text()
    report = json.loads(data.read_text())
    assert report["metrics"] == json.loads((out / "metrics.json").read_text())
    assert report["samples"]


def test_answers_are_graded_row_by_row(tmp_path: Path) -> None:
    source = write_rows(
        tmp_path / "answers.jsonl",
        [
            {"id": 1, "kind": "math", "gold": "\\frac12", "prediction": "0.5"},
            {"id": "b", "kind": "math", "gold": "2", "completion": "<think>3</think>\\boxed{2}"},
            {"id": 3, "kind": "integer", "gold": "025", "prediction": "24"},
            {"id": 4, "kind": "math", "gold": "2", "completion": "<think>\\boxed{2}"},
        ],
    )
    output = tmp_path / "verdicts.jsonl"
    done = evaluator("grade", "--input", source, "--output", output, "--jobs", 1)
    assert done.returncode == 0, done.stderr
    rows = read_rows(output)
    assert [row["id"] for row in rows] == [1, "b", 3, 4]
    assert [row["outcome"] for row in rows] == ["correct", "correct", "wrong", "no_answer"]
    assert set(rows[0]) == {"id", "outcome", "answer", "cpu_seconds"}


def test_completions_made_elsewhere_are_scored(tmp_path: Path) -> None:
    chosen = generate(4, seed=2)
    problems = write_rows(tmp_path / "p.jsonl", [problem.to_json() for problem in chosen])
    completions = write_rows(
        tmp_path / "c.jsonl",
        [
            {
                "problem_id": problem.id,
                "sample": sample,
                "completion": f"hm </think> \\boxed{{{problem.answer if sample else 999999}}}",
            }
            for problem in chosen
            for sample in range(2)
        ],
    )
    output = tmp_path / "metrics.json"
    base = ["score", "--benchmark", "arithmetic", "--problems", problems, "--completions"]
    done = evaluator(*base, completions, "--output", output)
    assert done.returncode == 0, done.stderr
    metrics = json.loads(output.read_text())
    assert metrics["pass@1"]["value"] == 0.5
    assert metrics["pass@k"]["2"] == 1.0
    # A replay of the same file is the same measurement by another way.
    replayed = evaluator(
        "run", "--benchmark", "arithmetic", "--problems", problems, "--engine", "replay",
        "--model", completions, "--protocol", "r1", "--samples", 2, "--out", tmp_path / "run",
    )  # fmt: skip
    assert replayed.returncode == 0, replayed.stderr
    again = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert again["pass@1"] == metrics["pass@1"]
    assert again["outcomes"] == metrics["outcomes"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["run", "--benchmark", "x", "--model", ".", "--out", "OUT"], "benchmark: none is called"),
        (["run", "--benchmark", "arithmetic", "--model", ".", "--out", "OUT"], "no download"),
        (
            ["run", "--benchmark", "arithmetic", "--problems", "PROBLEMS", "--model", ".",
             "--protocol", "x", "--out", "OUT"],
            "protocol: no preset is called 'x'",
        ),
        (
            ["run", "--benchmark", "arithmetic", "--problems", "PROBLEMS", "--model", ".",
             "--protocol", "BAD", "--out", "OUT"],
            "sampling.temperature: Input should be greater than or equal to 0.",
        ),
        (
            ["run", "--benchmark", "arithmetic", "--problems", "PROBLEMS", "--model", ".",
             "--out", "OUT"],
            "is no checkpoint folder",
        ),
        (
            ["run", "--benchmark", "arithmetic", "--problems", "PROBLEMS", "--model", "PROBLEMS",
             "--engine", "replay", "--out", "OUT"],
            "line 1: problem_id must be",
        ),
        (["grade", "--input", "MISSING", "--output", "OUT"], "cannot be read"),
        (["grade", "--input", "PROBLEMS", "--output", "OUT"], "line 1: kind None is not one of"),
        (["grade", "--input", "PROBLEMS", "--output", "MISSING/x"], "output: "),
        (["report", "FOLDER", "--output", "x.html"], "no run is in it"),
        (["report", "FOLDER", "--output", "x.doc"], "'doc' is not one of html, pdf, json"),
        (["arithmetic", "--count", "0", "--output", "OUT"], "--count"),
        (["arithmetic", "--count", "1000000000", "--output", "OUT"], "count: 1000000000"),
        (["nonsense"], "No such command 'nonsense'"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence_and_exit_code_2(
    tmp_path: Path, problems: Path, arguments: list[str], complaint: str
) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text('{"sampling": {"temperature": -1}}')
    out = tmp_path / "out"
    names = {
        "OUT": out,
        "PROBLEMS": problems,
        "BAD": bad,
        "FOLDER": tmp_path,
        "MISSING": tmp_path / "missing",
        "MISSING/x": tmp_path / "missing" / "x",
    }
    done = evaluator(*(names.get(argument, argument) for argument in arguments))
    assert done.returncode == 2, done.stderr
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists(), "nothing half-written"


def test_help_teaches_a_first_run() -> None:
    shown = evaluator("--help").stdout
    for word in ("run", "grade", "score", "report", "arithmetic", "Exit codes"):
        assert word in shown
    assert "--benchmark arithmetic --problems sums.jsonl" in shown
    options = evaluator("run", "--help").stdout
    for option in ("--benchmark", "--engine", "--model", "--protocol", "--samples", "--out"):
        assert option in options

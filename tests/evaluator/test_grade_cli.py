"""``python -m evaluator grade``: one row each, whatever the input, and the same with more jobs."""

from __future__ import annotations

import json
import random
import string
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "grading.jsonl"
SHARED = ROOT.parent / "shared" / "data" / "grading"


def grade(folder: Path, rows: list[dict[str, Any]], jobs: int = 1) -> list[dict[str, Any]]:
    source, output = folder / "rows.jsonl", folder / f"verdicts-{jobs}.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = _run(source, output, jobs)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in output.read_text().splitlines()]


def _run(source: Path, output: Path, jobs: int = 1) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "evaluator", "grade", "--input", source, "--output", output]
    return subprocess.run(
        [str(word) for word in [*command, "--jobs", jobs]],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


ALPHABETS = (
    string.printable,
    "{}[]()\\^_$",
    "0123456789",
    "0123456789+-*/^().,",
    "\\frac{}12 sqrt()",
    "\\boxed{}$ answer is 1",
    "and or,;=<>|x ",
    "√²一平答案是×π\x00\ud800",
)
NASTY = (
    "7" * 5000,
    "-" * 5000 + "1",
    "(" * 5000 + "1" + ")" * 5000,
    "{" * 3000 + "1" + "}" * 3000,
    "\\sqrt{" * 1000 + "1" + "}" * 1000,
    "\\boxed{" * 1500,
    "\\frac{1}{" * 800 + "1" + "}" * 800,
    "9^" * 400 + "9",
    "9^{" * 200 + "9" + "}" * 200,
    "((9^{999})^{999})^{999}",
    "9!!!!!!",
    "99999!",
    "\\binom{999999999}{444444444}",
    "\\sum_{k=1}^{10^{12}} k^{k}",
    "2^{2^{99}}-2^{2^{99}}+1",
    "\\int_0^\\infty \\sin(x^2) e^{-x^3} \\log(x+1) dx",
    "1/(1-1)",
    "\\sin(10^{99999})",
    "1," * 5000,
    ",".join(map(str, range(2000))),
    "\\pm" * 500 + "1",
    "x=" * 2000 + "1",
    "\\text{" * 700 + "1" + "}" * 700,
    "$" * 9999,
    "\\begin{pmatrix}" + "1&" * 2000 + "\\end{pmatrix}",
    "10^{10^{10}}",
    "1e9999",
    "0.\\overline{" + "3" * 4000 + "}",
    "x" * 6000,
    "\\(" * 4000,
)


def _hostile_rows() -> list[dict[str, Any]]:
    """1,000 rows of 10,000 random characters, long numbers, deep braces, towers."""
    source = random.Random(3)
    texts = ["".join(source.choices(ALPHABETS[i % 8], k=10_000)) for i in range(1000)]
    rows = [{"kind": "math", "prediction": text} for text in texts]
    rows += [
        {"kind": kind, "prediction": text}
        for text in NASTY
        for kind in ("math", "integer", "choice")
    ]
    return [{"id": number, "gold": "-17/4", **row} for number, row in enumerate(rows)]


def test_hostile_rows_end_in_bounded_time_with_one_refusal_each(tmp_path: Path) -> None:
    rows = _hostile_rows()
    started = time.monotonic()
    verdicts = grade(tmp_path, rows, jobs=2)
    assert time.monotonic() - started < 120
    assert [verdict["id"] for verdict in verdicts] == [row["id"] for row in rows]
    outcomes = Counter(verdict["outcome"] for verdict in verdicts)
    assert outcomes.keys() <= {"wrong", "no_answer"}, outcomes
    assert max(verdict["cpu_seconds"] for verdict in verdicts) <= 6.0


def test_hostile_completions_and_golds_end_too(tmp_path: Path) -> None:
    hostile = _hostile_rows()[::7]
    rows = [
        {"id": 0, "kind": "math", "gold": "-17/4", "completion": row["prediction"]}
        for row in hostile
    ]
    rows += [
        {"id": 1, "kind": "math", "gold": row["prediction"], "prediction": "-17/4"}
        for row in hostile
    ]
    verdicts = grade(tmp_path, rows, jobs=2)
    assert {verdict["outcome"] for verdict in verdicts} <= {"wrong", "no_answer", "looped"}


def test_verdicts_are_the_same_with_more_jobs_and_under_load(tmp_path: Path) -> None:
    cases = [json.loads(line) for line in GOLDEN.read_text().splitlines()]
    rows = [
        {"id": number, "kind": "math", "gold": case["gold"], "prediction": case["prediction"]}
        for number, case in enumerate(cases[::3])
    ]
    alone = grade(tmp_path, rows, jobs=1)
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4)]
    try:
        loaded = grade(tmp_path, rows, jobs=4)
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()
    assert [(v["id"], v["outcome"], v["answer"]) for v in alone] == [
        (v["id"], v["outcome"], v["answer"]) for v in loaded
    ]


def test_options_turn_the_shown_letter_into_the_problems_own(tmp_path: Path) -> None:
    order = [2, 0, 3, 1]  # shown as A: the third option of the problem
    rows = [
        {"id": 1, "kind": "choice", "gold": "C", "completion": "\\boxed{A}", "options": order},
        {"id": 2, "kind": "choice", "gold": "A", "completion": "Answer: A", "options": order},
        {"id": 3, "kind": "choice", "gold": "A", "completion": "Answer: B", "options": order},
        {"id": 4, "kind": "choice", "gold": "A", "completion": "Answer: A"},
        {"id": 5, "kind": "choice", "gold": "A", "prediction": "E", "options": order},
        {"id": 6, "kind": "choice", "gold": "A", "completion": "I cannot tell"},
    ]
    verdicts = grade(tmp_path, rows)
    assert [(v["outcome"], v["answer"]) for v in verdicts] == [
        ("correct", "C"), ("wrong", "C"), ("correct", "A"), ("correct", "A"), ("wrong", "E"),
        ("no_answer", None),
    ]  # fmt: skip


def test_answers_may_be_numbers_behind_a_byte_order_mark(tmp_path: Path) -> None:
    rows = [
        {"id": 1, "kind": "integer", "gold": 25, "prediction": "025"},
        {"id": 2, "kind": "math", "gold": "1/2", "prediction": 0.5},
        {"id": 3, "kind": "math", "gold": 0.1, "prediction": 1e-1},
        {"id": 4, "kind": "integer", "gold": 25, "prediction": 24},
    ]
    source, output = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    text = "".join(json.dumps(row) + "\r\n" for row in rows)
    source.write_text(text, encoding="utf-8-sig", newline="")
    assert _run(source, output).returncode == 0
    found = [json.loads(line)["outcome"] for line in output.read_text().splitlines()]
    assert found == ["correct"] * 3 + ["wrong"]


def test_a_null_prediction_is_no_answer(tmp_path: Path) -> None:
    rows = [{"id": 1, "kind": kind, "gold": "None", "prediction": None}
            for kind in ("math", "integer", "choice")]  # fmt: skip
    assert [v["outcome"] for v in grade(tmp_path, rows)] == ["no_answer"] * 3


ANSWER = '{"id": 1, "kind": "math", "gold": "1", "prediction": "1"'
CHOICE = '{"id": 1, "kind": "choice", "gold": "A", "prediction": "A", "options": '


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (ANSWER.replace("math", "maths") + "}", "kind 'maths' is not one of"),
        ('{"kind": "math", "gold": "1", "prediction": "1"}', "id is missing"),
        ('{"id": 1, "kind": "math", "gold": true, "prediction": "1"}', "gold must be a text"),
        ('{"id": 1, "kind": "math", "gold": "1", "prediction": [1]}', "prediction must be a text"),
        ('{"id": 1, "kind": "math", "gold": "1"}', "give either prediction or completion"),
        (ANSWER + ', "completion": "1"}', "give either prediction or completion"),
        (CHOICE + "[1, 1]}", "options must be the order shown"),
        (CHOICE + '"BA"}', "options must be the order shown"),
        ("[1]", "not a JSON object"),
        ("{", "not a JSON value"),
    ],
)  # fmt: skip
def test_malformed_rows_are_named_and_nothing_is_written(
    tmp_path: Path, row: str, words: str
) -> None:
    source, output = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"id": 0, "kind": "math", "gold": "1", "prediction": "1"}\n' + row + "\n")
    done = _run(source, output)
    assert done.returncode == 2
    assert f"line 2: {words}" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not output.exists()

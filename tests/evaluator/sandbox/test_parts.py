"""Checkers, extraction, forms of problems, the filter, limits: properties of the judge's parts."""

from __future__ import annotations

import gzip
import json
import math
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluator.errors import InputError
from evaluator.sandbox import box, languages, seccomp, store
from evaluator.sandbox.box import Command
from evaluator.sandbox.checkers import (
    CheckerProgram,
    Tolerance,
    check_floats,
    check_tokens,
)
from evaluator.sandbox.errors import SandboxUnavailableError
from evaluator.sandbox.extraction import CodeBlock, last_program
from evaluator.sandbox.judge import JudgeVerdict, judge
from evaluator.sandbox.limits import End, Limits
from evaluator.sandbox.problems import JudgeProblem, JudgeTest, find, from_row

SQUARE = JudgeProblem("square", (JudgeTest("1", b"7\n", b"49\n"), JudgeTest("2", b"3\n", b"9\n")))


@given(st.lists(st.text("ab1.", min_size=1), max_size=8), st.sampled_from([" ", "\n", " \t\r\n "]))
def test_tokens_ignore_white_space_only(words: list[str], gap: str) -> None:
    answer = " ".join(words).encode()
    assert check_tokens((gap + gap.join(words) + gap).encode(), answer).correct
    assert not check_tokens(answer + b" x", answer).correct
    if words:
        assert not check_tokens(" ".join(words[:-1]).encode(), answer).correct


@given(
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
)
def test_float_tolerance_is_the_formula(left: float, right: float) -> None:
    bounds = Tolerance(absolute=1e-6, relative=1e-3)
    expected = abs(left - right) <= 1e-6 or abs(left - right) <= 1e-3 * abs(right)
    assert check_floats(repr(left).encode(), repr(right).encode(), bounds).correct is expected


@pytest.mark.parametrize(
    ("output", "answer", "correct"),
    [
        (b"nan", b"1.0", False),
        (b"nan", b"nan", True),
        (b"1.0", b"nan", False),
        (b"inf", b"1e300", False),
        (b"inf", b"inf", True),
        (b"-inf", b"inf", False),
        (b"1e400", b"inf", True),  # a double has no other value for it
        (b"0x1p0", b"1", False),
        (b"1_0", b"10", False),
        (b"+1.", b"1", True),
        (b"YES 1.0000001", b"YES 1", True),
        (b"yes 1", b"YES 1", False),
        (b"", b"1", False),
    ],
)
def test_float_corner_cases(output: bytes, answer: bytes, correct: bool) -> None:
    assert check_floats(output, answer, Tolerance(1e-6, 1e-6)).correct is correct


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("```cpp\na\n```\ntext\n```python\nb\n```\n", CodeBlock("python", "b\n")),
        ("```cpp\na\n```\n```cpp\nb\n", CodeBlock("cpp", "a\n")),  # the last one was cut off
        ("```C++\na\n```", CodeBlock("cpp", "a\n")),
        ("```c++17 title\na\n```", CodeBlock("cpp", "a\n")),
        ("~~~py\na\n~~~", CodeBlock("python", "a\n")),
        ("````python\n```\nb\n```\n````", CodeBlock("python", "```\nb\n```\n")),
        ("```\nplain\n```", CodeBlock("cpp", "plain\n")),
        ("```python\na\n```\n```\noutput\n```", CodeBlock("python", "a\n")),
        ("```text\n1 2 3\n```", None),
        ("```rust\nfn main() {}\n```", None),
        ("```python\n\n```", None),
        ("no code", None),
        ("inline ```x``` only", None),
    ],
)
def test_the_last_complete_accepted_block_counts(text: str, expected: CodeBlock | None) -> None:
    assert last_program(text, ("cpp", "python"), default="cpp") == expected


def test_a_tag_stands_for_the_accepted_row_of_its_family() -> None:
    assert last_program("```cpp\na\n```", ("cpp20",)) == CodeBlock("cpp20", "a\n")
    assert last_program("```cpp\na\n```", ("python",)) is None


HUB = {
    "id": "1/A",
    "official_tests": [{"input": "7\n", "output": "49\n"}],
    "time_limit": 1.5,
    "memory_limit": 64.0,
    "input_mode": "stdio",
    "generated_checker": None,
    "interaction_format": None,
}


def test_the_hub_form_is_read(tmp_path: Path) -> None:
    path = tmp_path / "hub.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.write(json.dumps(HUB) + "\n")
    problem = find(path, "1/A")
    assert (problem.cpu_seconds, problem.memory_bytes) == (1.5, 64 << 20)
    assert problem.tests == (JudgeTest("1", b"7\n", b"49\n"),)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"official_tests": []}, "official_tests"),
        ({"official_tests": [{"input": "1"}]}, "official_tests"),
        ({"time_limit": -1}, "time_limit"),
        ({"time_limit": math.nan}, "time_limit"),
        ({"memory_limit": "big"}, "memory_limit"),
        ({"input_mode": "socket"}, "input_mode"),
        ({"interaction_format": "talk"}, "interactor"),
        ({"generated_checker": 3}, "generated_checker"),
        ({"id": None}, "id"),
        ({"checker": "custom"}, "checker_program"),
        ({"checker": "float"}, "checker_flags"),
    ],
)
def test_a_bad_row_names_its_field(change: dict[str, object], field: str) -> None:
    with pytest.raises(InputError, match=f"^{field}:"):
        from_row({**HUB, **change})


HUB_CHECKER = """
import sys
given, answer, output = (open(name).read() for name in sys.argv[1:4])
print(1 if abs(int(output)) == int(answer) else 0)
"""


def test_a_generated_checker_is_called_as_on_the_hub() -> None:
    problem = from_row({**HUB, "generated_checker": HUB_CHECKER})
    assert judge(problem, "python", "print(-int(input()) ** 2)").verdict is JudgeVerdict.AC
    assert judge(problem, "python", "print(50)").verdict is JudgeVerdict.WA


@pytest.mark.parametrize(
    ("language", "source"),
    [("cpp", "int main() { return 3; }"), ("cpp", "no program"), ("python", "raise SystemExit(9)")],
)
def test_a_checker_that_fails_is_the_judges_error(language: str, source: str) -> None:
    problem = JudgeProblem("x", SQUARE.tests, checker=CheckerProgram(language, source))
    assert judge(problem, "python", "print(49)").verdict is JudgeVerdict.JE


def test_files_instead_of_streams() -> None:
    problem = from_row({**HUB, "input_mode": "file"})
    good = "n = int(open('input.txt').read())\nopen('output.txt', 'w').write(str(n * n))"
    assert judge(problem, "python", good).verdict is JudgeVerdict.AC
    assert judge(problem, "python", "print(49)").verdict is JudgeVerdict.WA
    trick = "import os\nopen('x', 'w').write('49')\nos.symlink('x', 'output.txt')"
    assert judge(problem, "python", trick).verdict is JudgeVerdict.WA


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_the_verdict_does_not_depend_on_the_number_of_jobs(jobs: int) -> None:
    tests = tuple(JudgeTest(str(n), f"{n}\n".encode(), f"{n}\n".encode()) for n in range(6))
    source = "n = int(input())\nprint(n if n < 3 else 1 // (n - 3))"
    problem = JudgeProblem("x", tests)
    stopped = judge(problem, "python", source, jobs=jobs)
    assert [str(test.verdict) for test in stopped.tests] == ["AC", "AC", "AC", "RE"]
    whole = judge(problem, "python", source, jobs=jobs, stop_at_first_failure=False)
    assert [str(test.verdict) for test in whole.tests] == ["AC", "AC", "AC", "RE", "WA", "WA"]
    assert stopped.verdict is whole.verdict is JudgeVerdict.RE


def test_a_source_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    source = f'// {time.time_ns()}\n#include <cstdio>\nint main() {{ puts("49"); }}'
    first = languages.build(languages.get("cpp"), source)
    monkeypatch.setattr(languages, "_compile", None)
    assert languages.build(languages.get("cpp"), source) == first


def test_processor_time_counts_threads_and_ends_the_run() -> None:
    source = store.keep("program-spin.py", b"while True: pass\n")
    command = Command(("/usr/bin/python3", "/box/main.py"), {"main.py": source})
    result = box.execute(command, Limits(cpu_seconds=0.3))
    assert result.end is End.CPU
    assert 0.3 < result.cpu_seconds < 1.0


def test_without_bubblewrap_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    box.check_available.cache_clear()
    monkeypatch.setattr(box.shutil, "which", lambda name: None)
    with pytest.raises(SandboxUnavailableError, match="install the package bubblewrap"):
        box.check_available()
    monkeypatch.undo()
    box.check_available.cache_clear()
    box.check_available()


def test_giving_up_isolation_is_explicit_and_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(box.UNSAFE_VARIABLE, "1")
    result = judge(SQUARE, "python", "print(int(input()) ** 2)")
    assert result.verdict is JudgeVerdict.AC
    assert box.UNSAFE_VARIABLE in result.isolation


def test_the_filter_is_for_known_machines_only() -> None:
    for machine in ("x86_64", "aarch64"):
        assert len(seccomp.assemble(processes=False, machine=machine)) % 8 == 0
    with pytest.raises(SandboxUnavailableError, match="riscv"):
        seccomp.assemble(processes=False, machine="riscv64")


def test_the_command_prints_json_and_refuses_in_one_sentence(tmp_path: Path) -> None:
    problems, source = tmp_path / "p.jsonl", tmp_path / "s.py"
    problems.write_text(json.dumps(HUB) + "\n")
    source.write_text("print(int(input()) ** 2)")
    line = [sys.executable, "-m", "evaluator", "judge", "--problems", str(problems),
            "--language", "python", "--source", str(source), "--id"]  # fmt: skip
    done = subprocess.run([*line, "1/A"], capture_output=True, text=True, check=True)
    printed = json.loads(done.stdout)
    assert printed["verdict"] == "AC"
    assert set(printed["tests"][0]) >= {"verdict", "cpu_seconds", "memory_bytes"}
    refused = subprocess.run([*line, "2/B"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert refused.stderr.startswith("id: ")
    assert len(refused.stderr.strip().splitlines()) == 1

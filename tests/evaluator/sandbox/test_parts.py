"""Checkers, extraction, forms of problems, the filter, limits: properties of the judge's parts."""

from __future__ import annotations

import errno
import gzip
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluator.errors import InputError
from evaluator.graders.code import ACCEPTED
from evaluator.sandbox import box, checkers, interactive, languages, seccomp, store
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

GOOD_BLOCK = "```python\nprint(int(input()) ** 2)\n```"
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
        ("```c++20\na\n```", CodeBlock("cpp20", "a\n")),
        ("```C++14 (GCC)\na\n```", CodeBlock("cpp", "a\n")),
        ("```python3.11\na\n```", CodeBlock("python", "a\n")),
        ("```cpp:main.cpp\na\n```", CodeBlock("cpp", "a\n")),
        ("```{.cpp .numberLines}\na\n```", CodeBlock("cpp", "a\n")),
        ("1. So:\n   ```py\n   if a:\n\n       b\n   ```", CodeBlock("python", "if a:\n\n    b\n")),
        ("   ```py\n if a:\n     b\n   ```", CodeBlock("python", "if a:\n    b\n")),
        ("   ```py\nif a:\n    b\n   ```", CodeBlock("python", "if a:\n    b\n")),
        ("no code", None),
        ("inline ```x``` only", None),
    ],
)
def test_the_last_complete_accepted_block_counts(text: str, expected: CodeBlock | None) -> None:
    assert last_program(text, ACCEPTED, default="cpp") == expected


@pytest.mark.parametrize(
    "line", ["```" + " " * 200_000 + "`", "~" * 200_000 + "`", "```" + "\t " * 100_000 + "`"]
)
def test_no_line_takes_long_to_be_read(line: str) -> None:
    before = time.process_time()
    assert last_program(f"{line}\n{GOOD_BLOCK}", ACCEPTED) is not None
    assert time.process_time() - before < 1.0  # minutes, where each space were tried


def test_a_source_with_half_a_character_is_judged() -> None:
    assert judge(SQUARE, "python", "print(int(input()) ** 2)  # \ud83d").verdict is JudgeVerdict.AC


@given(st.binary(max_size=60), st.integers(1, 7))
def test_tokens_are_those_of_the_whole(text: bytes, piece: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkers, "_PIECE_BYTES", piece)
        assert list(checkers._tokens(text)) == text.split()


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
        ({"checker_flags": "space_change_sensitive"}, "checker_flags"),
        ({"checker_flags": "float_tolerance"}, "checker_flags"),
        ({"checker_flags": "float_tolerance small"}, "checker_flags"),
        ({"checker_flags": ["float_tolerance", "1e-6"]}, "checker_flags"),
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


@pytest.mark.parametrize("printed", ["", "WA", "0 tokens differ", "nan", "0.5"])
def test_a_generated_checker_passes_by_its_score_alone(printed: str) -> None:
    problem = from_row({**HUB, "generated_checker": f"print({printed!r})"})
    assert judge(problem, "python", "print(49)").verdict is JudgeVerdict.WA


@pytest.mark.parametrize("code", [1, 2, 4, 8])
def test_testlibs_codes_of_a_wrong_output_are_no_judge_error(code: int) -> None:
    checker = CheckerProgram("python", f"raise SystemExit({code})")
    problem = JudgeProblem("x", SQUARE.tests, checker=checker)
    assert judge(problem, "python", "print(49)").verdict is JudgeVerdict.WA


COUNTING_CHECKER = """
#include <fstream>
#include <vector>
int main(int, char **names) {
    std::ifstream output(names[2]), answer(names[3]);
    long given, expected;
    output >> given, answer >> expected;
    std::vector<char> room(given, 1);
    return %s;
}
"""


@pytest.mark.parametrize(
    ("output", "passes", "verdict"),
    [
        ("49", "given != expected", JudgeVerdict.AC),
        ("48", "given != expected", JudgeVerdict.WA),
        ("-1", "given != expected", JudgeVerdict.WA),  # it crashes
        ("9" * 15, "given != expected", JudgeVerdict.WA),  # more than its memory
        ("-1", "3", JudgeVerdict.JE),  # it does not know the jury's answer either
        ("49", "__builtin_trap(), 0", JudgeVerdict.JE),
    ],
)
def test_an_output_that_its_checker_cannot_read_is_wrong(
    output: str, passes: str, verdict: JudgeVerdict
) -> None:
    checker = CheckerProgram("cpp", COUNTING_CHECKER % passes)
    problem = JudgeProblem("x", SQUARE.tests[:1], checker=checker)
    assert judge(problem, "python", f"print({output!r})").verdict is verdict


INTERACTOR = """
import sys
n = int(open(sys.argv[1]).read())
print(n, flush=True)
answer = sys.stdin.readline().strip()
print("ok" if answer == str(n * n) else "-1", flush=True)
sys.exit(answer != str(n * n))
"""


@pytest.mark.parametrize(
    ("source", "verdict"),
    [
        ("n = int(input())\nprint(n * n, flush=True)\nassert input() == 'ok'", JudgeVerdict.AC),
        ("", JudgeVerdict.WA),  # ends at once: nobody reads what the interactor writes
        ("import os\nos.close(0)\nos.close(1)", JudgeVerdict.WA),
        ("n = int(input())", JudgeVerdict.WA),
        ("while True: print('1' * 100_000)", JudgeVerdict.WA),
        ("while True: print('1' * 100_000, end='')", JudgeVerdict.OLE),
        ("1 / 0", JudgeVerdict.RE),
    ],
)
def test_what_a_program_does_is_never_its_interactors_failure(
    source: str, verdict: JudgeVerdict
) -> None:
    problem = JudgeProblem("x", SQUARE.tests, interactor=CheckerProgram("python", INTERACTOR))
    assert judge(problem, "python", source, jobs=1).verdict is verdict


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


PATIENT_INTERACTOR = "import sys, time\n" + INTERACTOR.replace(
    'print("ok"', 'time.sleep(0.3)\nfor _ in range(20_000): print("ok"'
)
HASTY_INTERACTOR = INTERACTOR.replace('print("ok"', 'sys.exit(answer != str(n * n))\nprint("ok"')
TALKER = (
    "import time\nn = int(input())\nprint(n * n, flush=True)\n"
    "for _ in range(3): time.sleep(0.2); print('bye', flush=True)"
)


@pytest.mark.parametrize(
    ("program", "interactor"),
    [
        ("n = int(input())\nprint(n * n, flush=True)", PATIENT_INTERACTOR),
        (TALKER, HASTY_INTERACTOR),
    ],
)
def test_neither_needs_to_stay_for_the_others_last_words(program: str, interactor: str) -> None:
    checker = CheckerProgram("python", interactor)
    problem = JudgeProblem("x", SQUARE.tests[:1], interactor=checker)
    assert judge(problem, "python", program).verdict is JudgeVerdict.AC
    wrong = program.replace("n * n", "n")
    assert judge(problem, "python", wrong).verdict is JudgeVerdict.WA


COMPUTE = "import time\nwhile time.process_time() < 1.6: pass\n"
SLEEP = "import time\ntime.sleep(60)\n"
ANSWER = "n = int(input())\nprint(n * n, flush=True)"


@pytest.mark.parametrize(
    ("program", "interactor", "verdict"),
    [
        (COMPUTE + ANSWER, INTERACTOR, JudgeVerdict.AC),
        (ANSWER, COMPUTE + INTERACTOR, JudgeVerdict.AC),
        (SLEEP + ANSWER, INTERACTOR, JudgeVerdict.TLE),
        (COMPUTE + SLEEP, INTERACTOR, JudgeVerdict.TLE),
    ],
)
def test_who_waits_for_a_partner_that_computes_is_not_idle(
    program: str, interactor: str, verdict: JudgeVerdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on a machine so loaded that computing takes longer than either may sleep.
    monkeypatch.setattr(interactive, "_IDLE_FACTOR", 0.2)
    problem = JudgeProblem(
        "x", SQUARE.tests[:1], interactor=CheckerProgram("python", interactor), cpu_seconds=2.0
    )
    assert judge(problem, "python", program).verdict is verdict


def test_flags_are_kattis_own() -> None:
    def bounds(flags: str) -> Tolerance | None:
        return from_row({**HUB, "checker_flags": flags}).tolerance

    assert bounds("case_sensitive") is None
    assert bounds("float_tolerance 1e-4") == Tolerance(1e-4, 1e-4)
    both = "float_relative_tolerance 1e-3 case_sensitive float_absolute_tolerance 1e-9"
    assert bounds(both) == Tolerance(absolute=1e-9, relative=1e-3)


@pytest.mark.parametrize("language", ["cpp", "python"])
def test_a_full_disk_is_the_judges_error(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store, "keep", full)
    found = judge(SQUARE, language, f"#define SEED {time.time_ns()}\nint main() {{}}")
    assert found.verdict is JudgeVerdict.JE
    assert "No space left" in found.reason


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


def test_what_a_killed_judge_left_is_removed_and_what_is_at_work_stays() -> None:
    dead = subprocess.Popen(["/usr/bin/true"])
    dead.wait()
    long_ago = time.time() - 2 * store._ORPHAN_SECONDS
    folder = store.private_folder()
    left = folder / f"work-{dead.pid}-folder"
    left.mkdir()
    (left / "answer.txt").write_text("49")
    half, fresh = folder / f"work-{dead.pid}-half", folder / f"work-{dead.pid}-fresh"
    for file in (half, fresh):
        file.write_bytes(b"x")
    with store.shared({"answer.txt": b"49"}) as files:
        for path in (left, half, files["answer.txt"].parent):
            os.utime(path, (long_ago, long_ago))
        store.trim()
        assert files["answer.txt"].read_bytes() == b"49"
    assert not left.exists()
    assert not half.exists()
    assert fresh.exists()
    fresh.unlink()


def test_interpreted_programs_are_trimmed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[None] = []
    monkeypatch.setattr(store, "trim", lambda: calls.append(None))
    source = f"# {time.time_ns()}"
    for _ in range(2):
        languages.build(languages.get("python"), source)
    assert len(calls) == 1  # only where a program is added


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

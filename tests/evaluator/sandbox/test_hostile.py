"""Programs that attack: each prints the right answer only where its attack worked, so AC is a hole.

The first line of each says which verdicts it may get.
"""

from __future__ import annotations

import os
import re
import resource
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from evaluator.sandbox.checkers import check_tokens
from evaluator.sandbox.judge import JudgeVerdict, judge
from evaluator.sandbox.problems import JudgeProblem, JudgeTest

HOSTILE = Path(__file__).parents[2] / "golden" / "programs" / "hostile"
FILES = sorted(HOSTILE.iterdir())
LANGUAGES = {".cpp": "cpp", ".py": "python"}
PROBLEM = JudgeProblem("square", (JudgeTest("1", b"7\n", b"49\n"),), cpu_seconds=0.5)
# Filling the memory up costs CPU time too; on a slow host more than half a second.
ROOMY_PROBLEM = replace(PROBLEM, cpu_seconds=2.0)
RIGHT = "print(int(input()) ** 2)"


def sandboxes() -> set[str]:
    """Processes of this machine that a sandbox of this test's process started."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes()
            parent = re.search(r"PPid:\t(\d+)", (folder / "status").read_text())
        except OSError:
            continue  # it ended meanwhile
        if b"/.launcher" in line and parent and int(parent[1]) in (os.getpid(), 1):
            found.add(folder.name)
    return found


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_no_attack_works_or_outlives_its_run(path: Path) -> None:
    source = path.read_text()
    allowed = source.partition("\n")[0].partition("expect: ")[2].split()
    before = sandboxes()
    problem = ROOMY_PROBLEM if "MLE" in allowed else PROBLEM
    result = judge(problem, LANGUAGES[path.suffix], source)
    assert result.verdict is not JudgeVerdict.AC
    assert result.verdict in allowed, result.reason
    assert sandboxes() <= before
    assert judge(PROBLEM, "python", RIGHT).verdict is JudgeVerdict.AC  # the next one is unaffected


def test_a_compiler_message_shows_nothing_of_the_host() -> None:
    shadow = judge(PROBLEM, "cpp", (HOSTILE / "include_shadow.cpp").read_text())
    assert "No such file" in shadow.reason


def test_the_judges_own_memory_stays_flat() -> None:
    greedy = (HOSTILE / "output_endless.py").read_text()
    judge(PROBLEM, "python", greedy)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(10):
        assert judge(PROBLEM, "python", greedy).verdict is JudgeVerdict.OLE
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 16 * 1024  # KiB


def test_an_output_of_millions_of_tokens_takes_little_memory_to_check() -> None:
    flood = b"ab " * (1 << 19)
    tracemalloc.start()
    try:
        assert not check_tokens(flood, b"ab").correct
        assert tracemalloc.get_traced_memory()[1] < len(flood) * 2
    finally:
        tracemalloc.stop()


def test_there_are_enough() -> None:
    assert len(FILES) >= 40

"""Programs over real problems, each with its expected verdict (the beginning of its file's name).

A slow one runs for at least twice its limit, a right one for at most half: the verdict then says
nothing about the machine.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluator.sandbox.checkers import CheckerProgram
from evaluator.sandbox.judge import JudgeVerdict, judge
from evaluator.sandbox.problems import JudgeProblem, find

ROOT = Path(__file__).parents[3]
PROGRAMS = ROOT / "tests" / "golden" / "programs"
DATA = ROOT.parent / "shared" / "data" / "code"
LANGUAGES = {".cpp": "cpp", ".py": "python"}
SUBMISSIONS = sorted(
    path
    for path in PROGRAMS.glob("*/*_*.*")
    if path.parent.name != "hostile" and path.suffix in LANGUAGES
)

pytestmark = [
    pytest.mark.shared_data,
    pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data/code is absent"),
]


def helper(folder: Path, name: str) -> CheckerProgram | None:
    for path in folder.glob(f"{name}.*"):
        return CheckerProgram(LANGUAGES[path.suffix], path.read_text())
    return None


def load(folder: Path) -> JudgeProblem:
    name = folder.name
    file = "code_contests_test165" if name.startswith("cc-") else "icpc_problems"
    return find(
        DATA / f"{file}.jsonl.gz",
        name.replace(".", "/", 1),
        checker=helper(folder, "checker"),
        interactor=helper(folder, "interactor"),
    )


@pytest.mark.parametrize(
    "path", SUBMISSIONS, ids=[f"{path.parent.name}-{path.name}" for path in SUBMISSIONS]
)
def test_a_program_gets_its_verdict(path: Path) -> None:
    problem = load(path.parent)
    expected = JudgeVerdict(path.name.partition("_")[0].upper())
    jobs = 1 if expected is JudgeVerdict.TLE else 2  # one test of a slow program is enough
    result = judge(problem, LANGUAGES[path.suffix], path.read_text(), jobs=jobs)
    assert result.verdict is expected, result.reason
    if expected is JudgeVerdict.AC:
        assert len(result.tests) == len(problem.tests)
        assert all(0 < test.cpu_seconds <= problem.cpu_seconds / 2 for test in result.tests)
    if expected is JudgeVerdict.MLE:
        assert result.tests[-1].memory_bytes > 0


def test_there_are_enough_of_each_kind() -> None:
    verdicts = [path.name.partition("_")[0].upper() for path in SUBMISSIONS]
    assert len(SUBMISSIONS) >= 60
    assert set(verdicts) == set(JudgeVerdict) - {JudgeVerdict.JE}

"""The verdict on a program: PROTOCOLS §4."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from evaluator.sandbox import box, checkers, interactive, languages
from evaluator.sandbox.checkers import Finding
from evaluator.sandbox.errors import SandboxError, SandboxUnavailableError
from evaluator.sandbox.languages import CompileError, Program
from evaluator.sandbox.limits import MIB, End, Limits, RunResult
from evaluator.sandbox.problems import JudgeProblem, JudgeTest

_OUTPUT_BYTES = 8 * MIB
_FILE_SLACK_BYTES = 64 * MIB


class JudgeVerdict(StrEnum):
    """What the judge says of a program, or of one test."""

    AC = "AC"  # every test is right
    WA = "WA"
    TLE = "TLE"  # CPU time, or waiting for ever
    MLE = "MLE"
    RE = "RE"  # ended by a signal or a non-zero exit code
    CE = "CE"
    OLE = "OLE"  # more output than any right answer has
    JE = "JE"  # the judge, a checker or an interactor failed: says nothing about the program


_ENDS = {
    End.CPU: JudgeVerdict.TLE,
    End.IDLE: JudgeVerdict.TLE,
    End.MEMORY: JudgeVerdict.MLE,
    End.OUTPUT: JudgeVerdict.OLE,
}


@dataclass(frozen=True, slots=True)
class TestVerdict:
    """One test: its verdict, what the program used, and why in one clause."""

    name: str
    verdict: JudgeVerdict
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    memory_bytes: int = 0
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the row as plain JSON values."""
        return {
            "name": self.name,
            "verdict": str(self.verdict),
            "cpu_seconds": round(self.cpu_seconds, 6),
            "wall_seconds": round(self.wall_seconds, 6),
            "memory_bytes": self.memory_bytes,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict on a submission: the first failing test's, or AC."""

    verdict: JudgeVerdict
    tests: tuple[TestVerdict, ...]
    problem_id: str
    language: str
    isolation: str
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the judgement as plain JSON values."""
        return {
            "verdict": str(self.verdict),
            "problem_id": self.problem_id,
            "language": self.language,
            "isolation": self.isolation,
            "reason": self.reason,
            "cpu_seconds": max((test.cpu_seconds for test in self.tests), default=0.0),
            "memory_bytes": max((test.memory_bytes for test in self.tests), default=0),
            "tests": [test.to_json() for test in self.tests],
        }


def judge(
    problem: JudgeProblem,
    language: str,
    source: str,
    *,
    jobs: int | None = None,
    stop_at_first_failure: bool = True,
) -> Judgement:
    """Judge a submission with ``jobs`` tests at a time (default: the machine's cores).

    The verdict does not depend on ``jobs``: it is that of the first test, in their order, which
    is not AC; with ``stop_at_first_failure`` the tests behind it are not reported. A JE of any
    reported test makes the whole a JE. Raises InputError for an unknown language and
    SandboxUnavailableError where programs cannot be isolated; every other failure is a JE.
    """
    row = languages.get(language)
    box.check_available()

    def end(verdict: JudgeVerdict, reason: str, tests: tuple[TestVerdict, ...] = ()) -> Judgement:
        return Judgement(verdict, tests, problem.id, language, box.isolation(), reason)

    try:
        program = languages.build(row, source)
        if isinstance(program, CompileError):
            return end(JudgeVerdict.CE, program.message)
        custom = problem.interactor or problem.checker
        helper = None if custom is None else checkers.build(custom)
    except SandboxUnavailableError:
        raise
    except (SandboxError, OSError) as error:  # a full disk, say
        return end(JudgeVerdict.JE, str(error))

    def one(test: JudgeTest) -> TestVerdict:
        return _judge_test(problem, test, program, helper)

    tests = _in_order(problem.tests, one, jobs or os.cpu_count() or 1, stop_at_first_failure)
    failed = next((test for test in tests if test.verdict is JudgeVerdict.JE), None) or next(
        (test for test in tests if test.verdict is not JudgeVerdict.AC), None
    )
    if failed is None:
        return end(JudgeVerdict.AC, "", tuple(tests))
    return end(failed.verdict, f"test {failed.name}: {failed.reason}", tuple(tests))


def _in_order(
    tests: tuple[JudgeTest, ...], one: Callable[[JudgeTest], TestVerdict], jobs: int, stop: bool
) -> list[TestVerdict]:
    """Verdicts in the tests' order, ``jobs`` at a time, none asked for far beyond a failure."""
    found: list[TestVerdict] = []
    pending: list[Future[TestVerdict]] = []
    rest = iter(tests)
    with ThreadPoolExecutor(max_workers=jobs, thread_name_prefix="judge") as threads:
        while True:
            for test in rest:
                pending.append(threads.submit(one, test))
                if len(pending) >= jobs:
                    break
            if not pending:
                return found
            found.append(pending.pop(0).result())
            if stop and found[-1].verdict is not JudgeVerdict.AC:
                threads.shutdown(wait=True, cancel_futures=True)
                return found


def _limits(problem: JudgeProblem, test: JudgeTest) -> Limits:
    # Right outputs are about as long as the answer; a custom checker's may be longer.
    output = max(_OUTPUT_BYTES, 2 * len(test.answer) + MIB)
    files = len(test.input) + output if problem.file_mode else 0
    return Limits(
        cpu_seconds=problem.cpu_seconds,
        memory_bytes=problem.memory_bytes,
        output_bytes=output,
        tmp_bytes=_FILE_SLACK_BYTES + files,
    )


def _judge_test(
    problem: JudgeProblem, test: JudgeTest, program: Program, helper: Program | None
) -> TestVerdict:
    limits = _limits(problem, test)
    try:
        if problem.interactor is not None:
            assert helper is not None
            result, said = interactive.interact(
                program.command, limits, helper, test.input, test.answer
            )
            verdict, reason = _own(result)
            if said is not None and not said.correct:
                verdict, reason = JudgeVerdict.WA, said.reason
            return _row(test, result, verdict, reason)
        result = box.execute(program.command, limits, test.input, file_mode=problem.file_mode)
        verdict, reason = _own(result)
        if verdict is JudgeVerdict.AC:
            found = _check(problem, test, result.stdout, helper)
            verdict = JudgeVerdict.AC if found.correct else JudgeVerdict.WA
            reason = found.reason
        return _row(test, result, verdict, reason)
    except (SandboxError, OSError) as error:
        return TestVerdict(test.name, JudgeVerdict.JE, reason=str(error))


def _check(
    problem: JudgeProblem, test: JudgeTest, output: bytes, helper: Program | None
) -> Finding:
    if problem.checker is not None:
        assert helper is not None
        return checkers.run_checker(problem.checker, helper, test.input, output, test.answer)
    if problem.tolerance is not None:
        return checkers.check_floats(output, test.answer, problem.tolerance)
    return checkers.check_tokens(output, test.answer)


def _own(result: RunResult) -> tuple[JudgeVerdict, str]:
    """What the run alone says; AC: nothing against the program."""
    if result.end is End.EXIT:
        if result.exit_code == 0:
            return JudgeVerdict.AC, ""
        return JudgeVerdict.RE, f"exit code {result.exit_code}"
    if result.end is End.SIGNAL:
        return JudgeVerdict.RE, f"signal {result.exit_code - 128}"
    return _ENDS[result.end], f"limit: {result.end}"


def _row(test: JudgeTest, result: RunResult, verdict: JudgeVerdict, reason: str) -> TestVerdict:
    return TestVerdict(
        test.name, verdict, result.cpu_seconds, result.wall_seconds, result.memory_bytes, reason
    )

"""Outcomes of completions that are programs: what the judge says, in the words of PROTOCOLS §2.

AC is correct; a JE is a grader error; every other verdict is wrong, and is kept as the reason. A
response without a complete code block of an accepted language is looped, truncated or has no
answer. Two programs are never compared: there is no vote among them.
"""

from __future__ import annotations

from typing import Any

from evaluator.errors import GraderError
from evaluator.graders.base import Grader
from evaluator.graders.extraction import answer_part, is_looped
from evaluator.protocol import GradingPolicy, Thinking
from evaluator.records import Completion, FinishReason, Outcome, Verdict
from evaluator.sandbox import box, languages
from evaluator.sandbox.extraction import last_program
from evaluator.sandbox.judge import Judgement, JudgeVerdict, judge
from evaluator.sandbox.problems import JudgeProblem

NAME = "code"
ACCEPTED = ("cpp", "cpp20", "python")
_OUTCOMES = {JudgeVerdict.AC: Outcome.CORRECT, JudgeVerdict.JE: Outcome.GRADER_ERROR}


class CodeGrader(Grader):
    """Programs, judged by running them (:func:`grade_program`)."""

    name = NAME
    version = 2
    untrusted = True

    def check_available(self) -> None:
        """Raise SandboxUnavailableError, naming the package to install, where nothing can run."""
        box.check_available()
        for name in ACCEPTED:
            languages.get(name)

    def equal_fast(self, first: str, second: str, policy: GradingPolicy) -> bool | None:
        """Never called: the pool runs programs."""
        raise GraderError("code: programs are run and not compared.")


def grade_program(
    problem: JudgeProblem,
    completion: Completion,
    thinking: Thinking,
    *,
    accepted: tuple[str, ...] = ACCEPTED,
    default: str | None = "cpp",
    jobs: int = 1,
) -> Verdict:
    """Judge the last complete code block of a response; ``answer`` is its source.

    A block without a tag is read as ``default``. The reason begins with the judge's verdict, and
    says so where programs ran without isolation. Raises SandboxUnavailableError where programs
    cannot be isolated.
    """
    if completion.error is not None or completion.finish_reason is FinishReason.ERROR:
        return Verdict(Outcome.ENGINE_ERROR, reason=completion.error or "the engine failed")
    part = answer_part(completion.text, thinking, completion.reasoning)
    block = None if part is None else last_program(part, accepted, default)
    if block is None:
        why = "still thinking" if part is None else "no complete code block"
        if is_looped(completion.text) or (part is None and is_looped(completion.reasoning or "")):
            return Verdict(Outcome.LOOPED, reason=f"{why}; the end repeats itself")
        if completion.finish_reason is FinishReason.LENGTH:
            return Verdict(Outcome.TRUNCATED, reason=f"{why}; stopped by the token limit")
        return Verdict(Outcome.NO_ANSWER, reason=why)
    result = judge(problem, block.language, block.source, jobs=jobs)
    outcome = _OUTCOMES.get(result.verdict, Outcome.WRONG)
    reason = f"{result.verdict} {result.reason}".strip()
    if result.isolation.startswith("none"):
        reason += f" [isolation: {result.isolation}]"
    cpu_seconds = sum(test.cpu_seconds for test in result.tests)
    return Verdict(outcome, block.source, reason, cpu_seconds, _judged(problem, result))


def _judged(problem: JudgeProblem, result: Judgement) -> dict[str, Any]:
    """What is kept of a judgement: the verdict, the test that failed, the most that a test used.

    ``test`` is None where no test decided: all were passed, or the program did not compile.
    """
    passed = sum(test.verdict is JudgeVerdict.AC for test in result.tests)
    failed = next((test for test in result.tests if test.verdict is result.verdict), None)
    if result.verdict is JudgeVerdict.AC:
        failed = None
    return {
        "verdict": str(result.verdict),
        "language": result.language,
        "isolation": result.isolation,
        "passed": passed,
        "tests": len(problem.tests),
        "test": None if failed is None else failed.to_json(),
        "cpu_seconds": round(max((test.cpu_seconds for test in result.tests), default=0.0), 6),
        "memory_bytes": max((test.memory_bytes for test in result.tests), default=0),
    }

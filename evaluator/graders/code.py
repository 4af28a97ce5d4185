"""Outcomes of completions that are programs: what the judge says, in the words of PROTOCOLS §2.

AC is correct; a JE is a grader error; every other verdict is wrong, and is kept as the reason. A
response without a complete code block of an accepted language is looped, truncated or has no
answer. Not one of the comparing graders of the registry: two programs are never compared.
"""

from __future__ import annotations

from evaluator.graders.extraction import answer_part, is_looped
from evaluator.protocol import Thinking
from evaluator.records import Completion, FinishReason, Outcome, Verdict
from evaluator.sandbox.extraction import last_program
from evaluator.sandbox.judge import JudgeVerdict, judge
from evaluator.sandbox.problems import JudgeProblem

NAME = "code"
VERSION = 1
ACCEPTED = ("cpp", "python")
_OUTCOMES = {JudgeVerdict.AC: Outcome.CORRECT, JudgeVerdict.JE: Outcome.GRADER_ERROR}


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
        if is_looped(completion.text):
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
    return Verdict(outcome, block.source, reason, cpu_seconds)

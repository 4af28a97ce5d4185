"""From a response to an outcome (PROTOCOLS §2)."""

from __future__ import annotations

import pytest

from evaluator.graders.code import grade_program
from evaluator.protocol import Thinking
from evaluator.records import Completion, FinishReason, Outcome
from evaluator.sandbox.checkers import CheckerProgram
from evaluator.sandbox.problems import JudgeProblem, JudgeTest

TESTS = (JudgeTest("1", b"7\n", b"49\n"),)
GOOD = "```python\nprint(int(input()) ** 2)\n```"


@pytest.mark.parametrize(
    ("text", "finish", "outcome", "reason"),
    [
        (GOOD, "stop", Outcome.CORRECT, "AC"),
        ("```python\nprint(48)\n```", "stop", Outcome.WRONG, "WA"),
        ("```python\n1 / 0\n```", "stop", Outcome.WRONG, "RE"),
        ("```cpp\nint main( {}\n```", "stop", Outcome.WRONG, "CE"),
        ("I do not know.", "stop", Outcome.NO_ANSWER, "no complete"),
        ("```python\nprint(49)", "length", Outcome.TRUNCATED, "no complete"),
        ("```python\n" + "x = 1\n" * 400, "length", Outcome.LOOPED, "no complete"),
        ("", "error", Outcome.ENGINE_ERROR, "the engine failed"),
    ],
)
def test_every_response_has_one_outcome(
    text: str, finish: str, outcome: Outcome, reason: str
) -> None:
    response = Completion("p", 0, text, FinishReason(finish))
    verdict = grade_program(JudgeProblem("p", TESTS), response, Thinking(kind="none"))
    assert verdict.outcome is outcome
    assert verdict.reason.startswith(reason)


def test_code_in_the_thoughts_is_no_answer() -> None:
    thinking = Thinking(kind="tags", open="<think>", close="</think>", forced=True)
    response = Completion("p", 0, GOOD, FinishReason.STOP)
    verdict = grade_program(JudgeProblem("p", TESTS), response, thinking)
    assert verdict.outcome is Outcome.NO_ANSWER


def test_a_loop_in_a_separate_chain_of_thought_is_a_loop() -> None:
    endless = Completion("p", 0, "", FinishReason.LENGTH, reasoning="wait, " * 400)
    verdict = grade_program(JudgeProblem("p", TESTS), endless, Thinking(kind="field"))
    assert verdict.outcome is Outcome.LOOPED


def test_a_broken_checker_is_an_error_and_never_wrong() -> None:
    problem = JudgeProblem("p", TESTS, checker=CheckerProgram("python", "raise SystemExit(3)"))
    verdict = grade_program(problem, Completion("p", 0, GOOD), Thinking(kind="none"))
    assert verdict.outcome is Outcome.GRADER_ERROR

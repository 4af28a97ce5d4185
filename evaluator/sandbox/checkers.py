"""Whether an output is right: exact tokens, floats with tolerances, or a program that decides."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from evaluator.sandbox import box, languages, store
from evaluator.sandbox.errors import SandboxError
from evaluator.sandbox.languages import CompileError, Program
from evaluator.sandbox.limits import MIB, End, Limits

CHECKER_LIMITS = Limits(cpu_seconds=10.0, memory_bytes=1024 * MIB, output_bytes=64 * MIB)
_NUMBER = re.compile(
    rb"[+-]?(?:(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?|inf(?:inity)?|nan)", re.IGNORECASE
)
_MESSAGE_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Finding:
    """A checker's word: right or not, and why in one clause."""

    correct: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a float may be off; either bound is enough. Case is ignored unless asked for."""

    absolute: float = 0.0
    relative: float = 0.0


@dataclass(frozen=True, slots=True)
class CheckerProgram:
    """A custom checker or interactor.

    ``convention`` is ``testlib`` (input, output, answer; exit 0 right, 1 or 2 wrong) or ``hub``
    (``checker.py input.txt correct_output.txt solution_output.txt``; a number on standard output is
    the score, and 1 is right; without one the exit code counts). The hub's is the data set's own
    (dataset card of open-r1/codeforces, "generated_checker"); its authors' scorer takes the exit
    code 0 together with the output 1 for a pass
    (https://github.com/huggingface/open-r1, ``competitive_programming/cf_scoring.py``). A checker
    that fails itself (exit codes above 2, a signal, a limit) is a judge error here, where that
    scorer counts the test as not passed.
    """

    language: str
    source: str
    convention: str = "testlib"


def check_tokens(output: bytes, answer: bytes) -> Finding:
    """Equal sequences of tokens; white space separates and is otherwise ignored."""
    given, expected = output.split(), answer.split()
    for place, (left, right) in enumerate(zip(given, expected, strict=False), start=1):
        if left != right:
            return Finding(False, f"token {place}: {_short(left)}, expected {_short(right)}")
    return _same_length(given, expected)


def check_floats(output: bytes, answer: bytes, tolerance: Tolerance) -> Finding:
    """As tokens, but where both are numbers they may differ by the tolerance.

    An infinity equals only itself, nan only nan. Integers beyond a double's precision that are
    written the same are the same.
    """
    given, expected = output.split(), answer.split()
    for place, (left, right) in enumerate(zip(given, expected, strict=False), start=1):
        if left != right and not _close(left, right, tolerance):
            return Finding(False, f"token {place}: {_short(left)}, expected {_short(right)}")
    return _same_length(given, expected)


def _close(left: bytes, right: bytes, tolerance: Tolerance) -> bool:
    if not (_NUMBER.fullmatch(left) and _NUMBER.fullmatch(right)):
        return False
    given, expected = float(left), float(right)
    if math.isnan(expected) or math.isnan(given):
        return math.isnan(expected) and math.isnan(given)
    if math.isinf(expected) or math.isinf(given):
        return given == expected
    distance = abs(given - expected)
    return distance <= tolerance.absolute or distance <= tolerance.relative * abs(expected)


def _same_length(given: list[bytes], expected: list[bytes]) -> Finding:
    if len(given) == len(expected):
        return Finding(True)
    return Finding(False, f"{len(given)} tokens, expected {len(expected)}")


def _short(token: bytes) -> str:
    text = token.decode(errors="replace")
    return repr(text if len(text) <= 40 else text[:37] + "...")


def build(checker: CheckerProgram) -> Program:
    """Compile a checker; raises SandboxError where it is broken: that is no submission's fault."""
    made = languages.build(languages.get(checker.language), checker.source)
    if isinstance(made, CompileError):
        raise SandboxError(f"checker: it does not compile: {made.message}")
    return made


def run_checker(
    checker: CheckerProgram, program: Program, given: bytes, output: bytes, answer: bytes
) -> Finding:
    """Ask a custom checker, in a sandbox of its own; raises SandboxError where it fails."""
    contents = {"input.txt": given, "output.txt": output, "answer.txt": answer}
    with store.shared(contents) as files:
        order = ["input.txt", "output.txt", "answer.txt"]
        if checker.convention == "hub":
            order = ["input.txt", "answer.txt", "output.txt"]
        arguments = tuple(f"{box.BOX}/{word}" for word in order)
        result = box.execute(program.with_arguments(arguments, files), CHECKER_LIMITS)
    message = (result.stderr or result.stdout[:4096]).decode(errors="replace").strip()
    if checker.convention == "hub" and result.succeeded:
        words = result.stdout.split()
        if words and _NUMBER.fullmatch(words[-1]):
            return Finding(float(words[-1]) >= 1.0, f"score {words[-1].decode()}")
    return read_exit(result.end, result.exit_code, message)


def read_exit(end: End, exit_code: int, message: str) -> Finding:
    """Testlib's exit codes: 0 right; 1 wrong, 2 badly formed; others are the checker's failure."""
    reason = message.splitlines()[0][:_MESSAGE_CHARACTERS] if message else ""
    if end is End.EXIT and exit_code in (0, 1, 2):
        return Finding(exit_code == 0, reason)
    raise SandboxError(f"checker: it ended with {end} {exit_code} {reason}".rstrip() + ".")

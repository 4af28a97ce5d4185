"""Whether an output is right: exact tokens, floats with tolerances, or a program that decides."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from evaluator.sandbox import box, languages, store
from evaluator.sandbox.errors import SandboxError
from evaluator.sandbox.languages import CompileError, Program
from evaluator.sandbox.limits import MIB, End, Limits, RunResult

CHECKER_LIMITS = Limits(cpu_seconds=10.0, memory_bytes=1024 * MIB, output_bytes=64 * MIB)
_NUMBER = re.compile(
    rb"[+-]?(?:(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?|inf(?:inity)?|nan)", re.IGNORECASE
)
_GAP = re.compile(rb"\s")
_PIECE_BYTES = 1 << 16
_MESSAGE_CHARACTERS = 200
# Testlib's codes for what is the program's fault: wrong, badly formed, more or less than there
# should be (testlib.h: WA_, PE_, DIRT_, UNEXPECTED_EOF_EXIT_CODE). Its 3 is the checker's own.
_WRONG_EXITS = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class Finding:
    """A checker's word: right or not, and why in one clause."""

    correct: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a float may be off; either bound is enough."""

    absolute: float = 0.0
    relative: float = 0.0


@dataclass(frozen=True, slots=True)
class CheckerProgram:
    """A custom checker or interactor.

    ``convention`` is ``testlib`` (input, output, answer; exit 0 right, 1, 2, 4 or 8 wrong) or
    ``hub`` (``checker.py input.txt correct_output.txt solution_output.txt``; the last word on
    standard output is the score, and only a number of at least 1 is right). The hub's is the data
    set's own (dataset card of open-r1/codeforces, "generated_checker"); its authors' scorer takes
    the exit code 0 together with the output 1 for a pass
    (https://github.com/huggingface/open-r1, ``competitive_programming/cf_scoring.py``). A checker
    that fails itself (other exit codes; a signal or a limit at the jury's answer too) is a judge
    error here, where that scorer counts the test as not passed.
    """

    language: str
    source: str
    convention: str = "testlib"


def check_tokens(output: bytes, answer: bytes) -> Finding:
    """Equal sequences of tokens; white space separates and is otherwise ignored."""
    return _compare(output, answer, lambda _left, _right: False)


def check_floats(output: bytes, answer: bytes, tolerance: Tolerance) -> Finding:
    """As tokens, but where both are numbers they may differ by the tolerance.

    An infinity equals only itself, nan only nan. Integers beyond a double's precision that are
    written the same are the same.
    """
    return _compare(output, answer, lambda left, right: _close(left, right, tolerance))


def _compare(output: bytes, answer: bytes, close: Callable[[bytes, bytes], bool]) -> Finding:
    pairs = itertools.zip_longest(_tokens(output), _tokens(answer))
    for place, (left, right) in enumerate(pairs, start=1):
        if left is None or right is None:
            given, expected = (sum(1 for _ in _tokens(text)) for text in (output, answer))
            return Finding(False, f"{given} tokens, expected {expected}")
        if left != right and not close(left, right):
            return Finding(False, f"token {place}: {_short(left)}, expected {_short(right)}")
    return Finding(True)


def _tokens(text: bytes) -> Iterator[bytes]:
    """Token after token: as a list, an output of millions would take twenty times its room."""
    start = 0
    while start < len(text):
        gap = _GAP.search(text, start + _PIECE_BYTES)
        end = gap.start() if gap else len(text)
        yield from text[start:end].split()
        start = end


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
    """Ask a custom checker, in a sandbox of its own; raises SandboxError where it fails.

    One that crashes or runs into its limits is asked about the jury's own answer too: where it
    passes that, the output is what it cannot be read by, and wrong. Otherwise any program could
    keep a score incomplete for ever, by a number too large for a checker's loop.
    """
    result = _ask(checker, program, given, output, answer)
    if result.end is not End.EXIT and output != answer:
        control = _ask(checker, program, given, answer, answer)
        if control.succeeded and _read(checker, control).correct:
            return Finding(False, f"the checker, which passes the answer, ended with {result.end}")
    return _read(checker, result)


def _ask(
    checker: CheckerProgram, program: Program, given: bytes, output: bytes, answer: bytes
) -> RunResult:
    contents = {"input.txt": given, "output.txt": output, "answer.txt": answer}
    with store.shared(contents) as files:
        order = ["input.txt", "output.txt", "answer.txt"]
        if checker.convention == "hub":
            order = ["input.txt", "answer.txt", "output.txt"]
        arguments = tuple(f"{box.BOX}/{word}" for word in order)
        return box.execute(program.with_arguments(arguments, files), CHECKER_LIMITS)


def _read(checker: CheckerProgram, result: RunResult) -> Finding:
    message = (result.stderr or result.stdout[:4096]).decode(errors="replace").strip()
    if checker.convention == "hub" and result.succeeded:
        words = result.stdout.split()
        if not words or not _NUMBER.fullmatch(words[-1]):
            return Finding(False, "the checker gave no score")
        return Finding(float(words[-1]) >= 1.0, f"score {_short(words[-1])}")
    return read_exit(result.end, result.exit_code, message)


def read_exit(end: End, exit_code: int, message: str) -> Finding:
    """Testlib's exit codes: 0 right, _WRONG_EXITS wrong; others are the checker's failure."""
    reason = message.splitlines()[0][:_MESSAGE_CHARACTERS] if message else ""
    if end is End.EXIT and exit_code in (0, *_WRONG_EXITS):
        return Finding(exit_code == 0, reason)
    raise SandboxError(f"checker: it ended with {end} {exit_code} {reason}".rstrip() + ".")

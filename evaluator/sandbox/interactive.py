"""A program and an interactor that talk through two pipes, each in a sandbox of its own."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from dataclasses import replace

from evaluator.sandbox import box, store
from evaluator.sandbox.box import Command, Pair
from evaluator.sandbox.checkers import CHECKER_LIMITS, Finding, read_exit
from evaluator.sandbox.languages import Program
from evaluator.sandbox.limits import End, Limits, RunResult

_IDLE_FACTOR = 2  # time in which neither works; the program is the first that is ended
_SIGPIPE_EXIT = 128 + 13
_UNFLUSHED_EXIT = 120  # Python's, where standard output cannot be written at its end


def interact(
    command: Command, limits: Limits, interactor: Program, given: bytes, answer: bytes
) -> tuple[RunResult, Finding | None]:
    """Run both; returns the program's run and the interactor's finding, or None where the program
    ran into a limit or crashed before the interactor had ended: then the run says it all.

    The interactor is called as testlib's are: input file, output file, answer file; it reads the
    program's output and writes its input. Raises SandboxError where the interactor itself fails.
    """
    box.check_available()
    patience = _IDLE_FACTOR * limits.idle_limit_seconds
    limits = replace(limits, idle_seconds=patience)
    partner = replace(CHECKER_LIMITS, idle_seconds=2 * patience)
    with ExitStack() as stack:
        files = stack.enter_context(store.shared({"input.txt": given, "answer.txt": answer}))
        shared = stack.enter_context(tempfile.TemporaryFile())
        shared.truncate(box.PAIR_BYTES)
        arguments = (f"{box.BOX}/input.txt", "/tmp/output.txt", f"{box.BOX}/answer.txt")  # noqa: S108
        with ExitStack() as ours:
            from_program, to_interactor = os.pipe()
            from_interactor, to_program = os.pipe()
            # Each end must be closed here, or neither side would see the other's end.
            reader, writer = from_program, to_program
            for descriptor in (from_program, to_interactor, from_interactor, to_program):
                ours.callback(os.close, descriptor)
            second = stack.enter_context(
                box.start(
                    interactor.with_arguments(arguments, files),
                    partner, stdin=reader, stdout=writer, pair=Pair(shared.fileno(), 1),
                )
            )  # fmt: skip
            first = stack.enter_context(
                box.start(
                    command, limits, stdin=from_interactor, stdout=to_interactor,
                    pair=Pair(shared.fileno(), 0),
                )
            )  # fmt: skip
        result = first.wait()
        judged = second.wait()
    if result.end in (End.CPU, End.IDLE, End.MEMORY, End.OUTPUT):
        return result, None
    if not result.succeeded and result.ended_at < judged.ended_at:
        return result, None
    message = judged.stderr.decode(errors="replace").strip()
    if _had_no_listener(judged) and result.ended_at < judged.ended_at:
        return result, Finding(False, "the program stopped listening")
    return result, read_exit(judged.end, judged.exit_code, message)


def _had_no_listener(judged: RunResult) -> bool:
    """Whether the interactor ended because nobody read any more what it wrote."""
    if judged.end is End.SIGNAL:
        return judged.exit_code == _SIGPIPE_EXIT
    return judged.end is End.EXIT and judged.exit_code == _UNFLUSHED_EXIT

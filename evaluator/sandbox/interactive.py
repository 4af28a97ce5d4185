"""A program and an interactor that talk through two pipes, each in a sandbox of its own."""

from __future__ import annotations

import os
import tempfile
import threading
from contextlib import ExitStack
from dataclasses import replace

from evaluator.sandbox import box, store
from evaluator.sandbox.box import Command, Pair
from evaluator.sandbox.checkers import CHECKER_LIMITS, Finding, read_exit
from evaluator.sandbox.languages import Program
from evaluator.sandbox.limits import End, Limits, RunResult

_IDLE_FACTOR = 2  # time in which neither works; the program is the first that is ended
_PIECE_BYTES = 1 << 16


class _Relay:
    """Carries what a program writes to its interactor, and ends it after ``most`` bytes: without
    an end, an interactor that looks for the end of a line would fail for want of memory.

    The program writes to ``writer`` and the interactor reads from ``reader``: the caller closes
    both once they have been given away.
    """

    def __init__(self, most: int) -> None:
        self._source, self.writer = os.pipe()
        self.reader, self._sink = os.pipe()
        self.full = False  # whether the program wrote more
        self._thread = threading.Thread(target=self._carry, args=(most,), name="relay")
        self._thread.start()

    def join(self) -> None:
        """Wait until one of the two has ended and all is carried."""
        self._thread.join()

    def _carry(self, most: int) -> None:
        try:
            while moved := os.splice(self._source, self._sink, _PIECE_BYTES):
                most -= moved
                if most < 0:
                    self.full = True
                    return
        except BrokenPipeError:  # the interactor has ended: a last word to it is no crash
            while most >= 0 and (rest := os.read(self._source, _PIECE_BYTES)):
                most -= len(rest)
        finally:
            os.close(self._source)
            os.close(self._sink)


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
        relay = _Relay(CHECKER_LIMITS.output_bytes)
        stack.callback(relay.join)
        with ExitStack() as ours:
            from_interactor, to_program = os.pipe()
            stack.callback(os.close, from_interactor)
            # What they write to must be closed here, or neither would see the other's end.
            for descriptor in (relay.writer, relay.reader, to_program):
                ours.callback(os.close, descriptor)
            second = stack.enter_context(
                box.start(
                    interactor.with_arguments(arguments, files), partner,
                    stdin=relay.reader, stdout=to_program, pair=Pair(shared.fileno(), 1),
                )
            )  # fmt: skip
            first = stack.enter_context(
                box.start(
                    command, limits,
                    stdin=from_interactor, stdout=relay.writer, pair=Pair(shared.fileno(), 0),
                )
            )  # fmt: skip
        result = first.wait()
        # A program need not stay for the interactor's last words; unread, they would crash it.
        while os.read(from_interactor, _PIECE_BYTES):
            continue
        judged = second.wait()
    if relay.full:
        return replace(result, end=End.OUTPUT), None
    if result.end in (End.CPU, End.IDLE, End.MEMORY, End.OUTPUT):
        return result, None
    if not result.succeeded and result.ended_at < judged.ended_at:
        return result, None
    message = judged.stderr.decode(errors="replace").strip()
    return result, read_exit(judged.end, judged.exit_code, message)

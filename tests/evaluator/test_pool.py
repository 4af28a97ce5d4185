"""One verdict per request, in order, whatever the input does to the processes."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluator.graders.pool import GradeRequest, GraderPool
from evaluator.protocol import GradingPolicy, Thinking
from evaluator.records import Completion, FinishReason, Outcome, Verdict

NONE = Thinking(kind="none")
SLOW = ("1", r"\int_0^\infty \sin(x^2) e^{-x^3} \log(x+1) dx")  # sympy looks for a closed form
EASY = ("x<1", "-x>-1")  # equal, but not without a process


def _request(pair: tuple[str, str]) -> GradeRequest:
    gold, prediction = pair
    return GradeRequest("math", gold, prediction=prediction, thinking=NONE, policy=GradingPolicy())


def _completion(text: str, thinking: Thinking = NONE, **fields: object) -> GradeRequest:
    completion = Completion("p", 0, text, **fields)  # type: ignore[arg-type]
    return GradeRequest(
        "integer", "7", completion=completion, thinking=thinking, policy=GradingPolicy()
    )


@pytest.fixture
def pool() -> Iterator[GraderPool]:
    with GraderPool(jobs=2) as started:
        yield started


LOOP = "so we go on and on; " * 100


@pytest.mark.parametrize(
    ("request_", "outcome"),
    [
        (_completion(r"\boxed{007}"), Outcome.CORRECT),
        (_completion(r"\boxed{8}"), Outcome.WRONG),
        (_completion(r"\boxed{7}" + LOOP), Outcome.CORRECT),  # an answer goes before a loop
        (_completion(LOOP, finish_reason=FinishReason.LENGTH), Outcome.LOOPED),
        (_completion("well", finish_reason=FinishReason.LENGTH), Outcome.TRUNCATED),
        (_completion("well", finish_reason=FinishReason.STOP), Outcome.NO_ANSWER),
        (_completion(r"<think>\boxed{7}", Thinking(), finish_reason=FinishReason.LENGTH),
         Outcome.TRUNCATED),  # thoughts are never searched
        (_completion("<think>" + LOOP, Thinking()), Outcome.LOOPED),
        (_completion(r"\boxed{7}", error="connection lost"), Outcome.ENGINE_ERROR),
        (_completion("", finish_reason=FinishReason.ERROR), Outcome.ENGINE_ERROR),
        (GradeRequest("integer", "7", thinking=NONE, policy=GradingPolicy()), Outcome.ENGINE_ERROR),
        (GradeRequest("integer", "7", prediction=" ", thinking=NONE, policy=GradingPolicy()),
         Outcome.NO_ANSWER),
    ],
)  # fmt: skip
def test_outcomes_in_their_order(
    pool: GraderPool, request_: GradeRequest, outcome: Outcome
) -> None:
    verdict = next(pool.grade([request_]))
    assert verdict.outcome is outcome
    assert (verdict.answer is not None) == (outcome in (Outcome.CORRECT, Outcome.WRONG))


def _children() -> set[int]:
    """Pids of this process's living children."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found


def test_a_comparison_over_its_cpu_time_is_wrong_and_the_others_stand() -> None:
    """Another try would end the same way: as an error it would keep the score incomplete."""
    with GraderPool(jobs=1, cpu_seconds=0.5) as pool:
        pairs = [EASY, SLOW, SLOW[::-1], ("y<2", "-y>-2"), ("1", "2")]
        verdicts = list(pool.grade(map(_request, pairs)))
    assert [v.outcome for v in verdicts] == [
        Outcome.CORRECT, Outcome.WRONG, Outcome.WRONG, Outcome.CORRECT, Outcome.WRONG,
    ]  # fmt: skip
    assert "CPU time" in verdicts[1].reason
    assert verdicts[1].cpu_seconds == 0.5


def test_a_comparison_without_room_is_wrong_and_the_next_one_stands() -> None:
    before = _children()
    with GraderPool(jobs=1) as pool:
        next(pool.grade([_request(EASY)]))
        (child,) = _children() - before
        room = int(Path(f"/proc/{child}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    greedy = ("1", r"\sum_{k=1}^{900} \int_0^1 x^{k} dx")
    with GraderPool(jobs=1, memory_bytes=room + (8 << 20), cpu_seconds=2.0) as pool:
        verdicts = list(pool.grade(map(_request, [greedy, EASY])))
    assert [v.outcome for v in verdicts] == [Outcome.WRONG, Outcome.CORRECT]


def test_a_killed_process_is_replaced_and_its_comparison_done_again() -> None:
    before = _children()
    with GraderPool(jobs=1) as pool:
        assert next(pool.grade([_request(EASY)])).outcome is Outcome.CORRECT
        (child,) = _children() - before
        os.kill(child, signal.SIGKILL)
        assert next(pool.grade([_request(("y<1", "-y>-1"))])).outcome is Outcome.CORRECT
        assert child not in _children()
    assert _children() == before


def test_a_process_that_cannot_start_is_an_error_not_a_wrong_answer() -> None:
    with GraderPool(jobs=1, memory_bytes=1 << 20) as pool:
        verdicts = list(pool.grade([_request(EASY), _request(("1", "1"))]))
    assert [v.outcome for v in verdicts] == [Outcome.GRADER_ERROR, Outcome.CORRECT]
    assert verdicts[0].reason


def test_closing_leaves_no_process_even_in_the_middle_of_the_work() -> None:
    before = _children()
    with GraderPool(jobs=2, cpu_seconds=1.0) as pool:
        verdicts = pool.grade(_request((f"x+{i}", f"{i}+x")) for i in range(50))
        assert next(verdicts).outcome is Outcome.CORRECT
    assert _children() == before


def test_order_is_kept_and_several_threads_may_grade(pool: GraderPool) -> None:
    pairs = [(f"x+{i}", f"{i % 3}+x") for i in range(30)] + [("1", "1")] * 5
    expected = [Outcome.CORRECT if i < 3 else Outcome.WRONG for i in range(30)]
    expected += [Outcome.CORRECT] * 5
    results: dict[int, list[Verdict]] = {}

    def grade(index: int) -> None:
        results[index] = list(pool.grade(map(_request, pairs)))

    threads = [threading.Thread(target=grade, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [[v.outcome for v in results[i]] for i in range(3)] == [expected] * 3


def test_the_integer_grader_starts_no_process(pool: GraderPool) -> None:
    before = _children()
    started = time.monotonic()
    verdicts = list(pool.grade([_completion(r"\boxed{7}")] * 2000))
    assert {v.outcome for v in verdicts} == {Outcome.CORRECT}
    assert _children() == before
    assert time.monotonic() - started < 10


def test_equal_tells_pairs_apart_and_keeps_their_order(pool: GraderPool) -> None:
    pairs = [("0.5", "1/2"), ("x+1", "1+x"), ("x", "y"), ("2", "3")]
    assert pool.equal("math", pairs, GradingPolicy()) == [True, True, False, False]


def test_the_process_has_no_secrets_no_network_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RETORT_SECRET_FOR_TEST", "hidden")
    before = _children()
    with GraderPool(jobs=1, memory_bytes=1 << 30) as pool:
        next(pool.grade([_request(EASY)]))
        (child,) = _children() - before
        process = Path(f"/proc/{child}")
        assert b"RETORT_SECRET_FOR_TEST" not in (process / "environ").read_bytes()
        limits = (process / "limits").read_text().splitlines()
        network = (process / "ns/net").readlink()
    hard = {line[:26].strip(): line[26:].split()[1] for line in limits[1:]}
    assert hard["Max file size"] == "0"
    assert hard["Max address space"] == str(1 << 30)
    namespaces = subprocess.run(["unshare", "--user", "--net", "true"], check=False)
    if namespaces.returncode == 0:  # the kernel grants them to this user
        assert network != Path("/proc/self/ns/net").readlink()

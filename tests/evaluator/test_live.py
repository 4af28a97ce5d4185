"""The running score is the score so far, keeps verdicts for the end, and never delays it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evaluator import benchmarks, runner
from evaluator.benchmarks.arithmetic import generate
from evaluator.errors import GraderError, InputError
from evaluator.graders.pool import GradeRequest, GraderPool
from evaluator.live import RunningScore
from evaluator.local import LocalRun
from evaluator.passport import Passport
from evaluator.protocol import Protocol
from evaluator.records import Completion, Outcome, Verdict

SPEC = benchmarks.get("arithmetic")
PROBLEMS = generate(12, seed=3)
PROTOCOL = Protocol(samples=3)


def completions() -> list[Completion]:
    """Of problem number i, min(i, 3) of 3 samples are right."""
    return [
        Completion(p.id, sample, f"\\boxed{{{p.answer if sample < number % 4 else 12345}}}")
        for number, p in enumerate(PROBLEMS)
        for sample in range(3)
    ]


def running(pool: Any) -> RunningScore:
    return RunningScore(PROBLEMS, benchmark=SPEC, protocol=PROTOCOL, pool=pool)


def metrics(pool: GraderPool, graded: Any, seen: list[Any]) -> dict[str, Any]:
    return runner.grade(
        PROBLEMS,
        [completion.to_json() for completion in completions()],
        benchmark=SPEC,
        protocol=PROTOCOL,
        samples=3,
        pool=pool,
        passport=Passport({}, {}),
        on_row=seen.append,
        graded=graded,
    )


def test_once_all_are_graded_it_is_the_score_and_nothing_is_graded_twice() -> None:
    with GraderPool(1) as pool:
        with running(pool) as score:
            assert score.estimate() is None
            score.add(Completion("unknown to it", 0, "", error="no answer within 5 s"))
            for completion in completions():
                score.add(completion)
            deadline = time.monotonic() + 30
            while len(score.rows) < 36 and time.monotonic() < deadline:
                time.sleep(0.01)
        found = score.estimate()
        again: list[Any] = []
        whole = metrics(pool, score.rows, again)
        alone: list[Any] = []
        assert metrics(pool, (), alone) == whole
    assert not again
    assert score.rows == alone
    assert found is not None
    assert (found.samples, found.problems) == (36, 12)
    assert (found.value, found.low, found.high) == tuple(
        whole["pass@1"][name] for name in ("value", "low", "high")
    )


class SlowPool:
    def grade(self, requests: Iterable[GradeRequest]) -> Iterator[Verdict]:
        for _ in requests:
            time.sleep(0.1)
            yield Verdict(Outcome.WRONG)


class BrokenPool:
    def grade(self, requests: Iterable[GradeRequest]) -> Iterator[Verdict]:
        raise GraderError("no grader starts.")


def test_what_waits_when_drawing_ends_is_left_to_the_whole_pool() -> None:
    started = time.monotonic()
    with running(SlowPool()) as score:
        for completion in completions():
            score.add(completion)
        time.sleep(0.25)
    assert time.monotonic() - started < 1.5
    assert 1 <= len(score.rows) < 20


def test_a_backlog_is_bounded_by_what_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluator.live._BACKLOG_CHARACTERS", 100)
    with running(SlowPool()) as score:
        for completion in completions():
            score.add(completion)
        assert score._waiting.qsize() <= 100 // len(completions()[0].text) + 1


def draw_with_a_broken_grader(error: Exception | None) -> None:
    with running(BrokenPool()) as score:
        score.add(completions()[0])
        time.sleep(0.2)
        if error is not None:
            raise error


def test_a_grader_that_fails_is_heard_of_at_the_end() -> None:
    with pytest.raises(GraderError, match="no grader starts"):
        draw_with_a_broken_grader(None)
    with pytest.raises(InputError, match="an earlier failure"):
        draw_with_a_broken_grader(InputError("an earlier failure."))


def test_a_run_that_never_began_leaves_no_folder_and_one_that_did_is_kept(tmp_path: Path) -> None:
    def begin(name: str) -> LocalRun:
        return LocalRun.begin(
            tmp_path / name, benchmark="arithmetic", problems=PROBLEMS, protocol=PROTOCOL,
            samples=3, engine={"name": "replay"}, checkpoint="x",
        )  # fmt: skip

    begin("empty").discard_if_empty()
    assert not (tmp_path / "empty").exists()
    kept = begin("kept")
    with kept.store.writer() as writer:
        writer.append(completions()[0].to_json())
    kept.discard_if_empty()
    assert len(begin("kept").store.keys()) == 1

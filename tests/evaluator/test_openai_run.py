"""``python -m evaluator run --engine openai`` as a user runs it, against a local endpoint."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from aiohttp import web

from evaluator.benchmarks.arithmetic import generate
from evaluator.store import Store
from tests.evaluator.endpoint_stub import Body, Stub, polite, refuse, reply

REPOSITORY = Path(__file__).parents[2]
KEY = "sk-never-to-be-seen-4711"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def run(stub_url: str, problems: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable, "-m", "evaluator", "run", "--benchmark", "arithmetic", "--problems",
            str(problems), "--engine", "openai", "--base-url", stub_url, "--model", "org/m",
            "--protocol", "quick", "--jobs", "1", "--out", str(out), *more,
        ],
        cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    path = tmp_path / "sums.jsonl"
    rows = [json.dumps(problem.to_json()) + "\n" for problem in generate(60, seed=1)]
    path.write_text("".join(rows))
    return path


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_was_ended_goes_on_and_repeats_only_what_was_in_flight(
    problems: Path, tmp_path: Path, end: signal.Signals
) -> None:
    answered: Counter[int] = Counter()

    async def slow(stub: Stub, request: web.Request, body: Body) -> web.StreamResponse:
        await asyncio.sleep(0.1)
        answered[body["seed"]] += 1
        return reply(body, "so \boxed{7}", model="org/m")

    out = tmp_path / "run"
    with Stub(slow) as stub:
        first = run(stub.url, problems, out, "--option", "concurrency=4")
        deadline = time.monotonic() + 60
        while len(stub.bodies) < 60 and time.monotonic() < deadline:
            time.sleep(0.02)
        first.send_signal(end)
        _, errors = first.communicate(timeout=60)
        assert first.returncode == (130 if end is signal.SIGINT else -end), errors
        kept = Store(out / "segments").keys()
        earlier = len(stub.bodies)
        assert earlier - 8 <= len(kept) <= earlier
        second = run(stub.url, problems, out)
        printed, errors = second.communicate(timeout=120)
    assert second.returncode == 0, errors
    assert len(stub.bodies) == earlier + 240 - len(kept)
    assert len(answered) == 240
    assert "pass@1[avg-of-4]" in printed
    metrics = json.loads((out / "metrics.json").read_text())
    assert sum(metrics["outcomes"].values()) == 240
    assert metrics["complete"]
    everything = "".join(p.read_text() for p in out.glob("*.json*")) + printed + errors
    assert KEY not in everything


def test_failed_samples_are_asked_again_and_then_the_run_is_complete(
    problems: Path, tmp_path: Path
) -> None:
    async def picky(stub: Stub, request: web.Request, body: Body) -> web.StreamResponse:
        return refuse(422, "no") if body["seed"] % 5 == 0 and len(stub.bodies) > 8 else reply(body)

    out = tmp_path / "run"
    with Stub(picky) as stub:
        printed, errors = (first := run(stub.url, problems, out)).communicate(timeout=120)
        assert first.returncode == 0, errors
        assert "a sample failed: HTTP 422: no" in errors
        assert "incomplete" in printed
        failed = json.loads((out / "metrics.json").read_text())["outcomes"]["engine_error"]
        assert failed > 0
        earlier = len(stub.bodies)
        stub.behaviour = polite
        _, errors = (second := run(stub.url, problems, out)).communicate(timeout=120)
    assert second.returncode == 0, errors
    assert len(stub.bodies) == earlier + failed
    assert json.loads((out / "metrics.json").read_text())["complete"]
    assert len((out / "grades.jsonl").read_text().splitlines()) == 240


def test_a_dead_endpoint_or_a_wrong_key_is_one_sentence_and_leaves_nothing(
    problems: Path, tmp_path: Path
) -> None:
    async def locked(stub: Stub, request: web.Request, body: Body) -> web.StreamResponse:
        return refuse(401, f"Incorrect API key provided: {KEY}")

    out = tmp_path / "run"
    with Stub(locked) as stub:
        url = stub.url
        _, errors = (locked_out := run(url, problems, out)).communicate(timeout=60)
        assert locked_out.returncode == 2, errors
        assert "HTTP 401: the key is missing or not accepted; check the key's" in errors
        assert not out.exists()
    _, errors = (dead := run(url, problems, out)).communicate(timeout=60)
    assert dead.returncode == 2, errors
    assert "no connection" in errors
    assert "Traceback" not in errors
    assert KEY not in errors
    assert not out.exists()
    for more, complaint in (
        (("--option", "concurrency"), "option: 'concurrency' is not NAME=VALUE"),
        (("--option", "colour=red"), "unknown option 'colour'"),
        (("--option", "concurrency=0"), "concurrency: must be at least 1"),
    ):
        _, errors = (wrong := run(url, problems, out, *more)).communicate(timeout=60)
        assert wrong.returncode == 2
        assert complaint in errors
        assert not out.exists()


def test_thoughts_that_an_endpoint_opened_and_the_limit_cut_are_no_answer(
    problems: Path, tmp_path: Path
) -> None:
    """Half of the responses are cut off while thinking, with a right answer in their thoughts."""
    rows = map(json.loads, problems.read_text().splitlines())
    right = {row["problem"]: row["answer"] for row in rows}

    async def thinks(stub: Stub, request: web.Request, body: Body) -> web.StreamResponse:
        asked = body["messages"][-1]["content"]
        answer = next(right[problem] for problem in right if problem in asked)
        if body["seed"] % 2:
            return reply(body, rf"it is \boxed{{{answer}}}</think>\boxed{{{answer}}}")
        message = {"content": rf"perhaps \boxed{{{answer}}}"}
        return reply(body, choices=[{"message": message, "finish_reason": "length"}])

    out = tmp_path / "run"
    with Stub(thinks) as stub:
        _, errors = (done := run(stub.url, problems, out)).communicate(timeout=120)
        odd = sum(body["seed"] % 2 for body in stub.bodies)
    assert done.returncode == 0, errors
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["outcomes"]["correct"] == odd
    assert metrics["outcomes"]["truncated"] == 240 - odd

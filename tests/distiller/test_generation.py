"""Drawing traces: which samples, how counted, whatever is killed in between."""

from __future__ import annotations

import contextlib
import gzip
import json
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import settings as bounded
from hypothesis import strategies as st
from pydantic import ValidationError

from distiller import generation, local, prompting, traces
from distiller.errors import InputError
from distiller.generation import Tally
from distiller.recipe import Price, Recipe
from evaluator.engines.base import Request
from evaluator.protocol import Protocol, Sampling, Thinking
from evaluator.records import Completion, FinishReason, Problem, completion_seed
from evaluator.store import SegmentWriter
from tests.distiller.samples import recipe
from tests.evaluator.endpoint_stub import Body, Stub, reply

INTEGER = [{"name": "answer", "parameters": {"grader": "integer"}}]


class KilledError(Exception):
    """The engine is gone."""


class Script:
    """An engine that says what it is told, and dies after so many completions."""

    def __init__(self, right: set[tuple[str, int]], *, dies_after: int = 10**9) -> None:
        self.right, self.left = right, dies_after
        self.asked: list[Request] = []

    def describe(self) -> dict[str, Any]:
        return {"name": "script"}

    def render(self, problem: str, *, prompt: str, protocol: Protocol) -> str:
        return prompt.replace("{problem}", problem)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
        for request in reversed(requests):  # engines answer in any order
            if not self.left:
                raise KilledError
            self.left -= 1
            self.asked.append(request)
            text = f"<think>so</think>\\boxed{{{7 if request.key in self.right else 8}}}"
            yield Completion(
                *request.key, text, FinishReason.STOP, 10, 100, seed=request.seed
            )  # fmt: skip

    def close(self) -> None:
        pass


def problems(count: int) -> list[Problem]:
    return [Problem(f"p{index}", f"question {index}", "7") for index in range(count)]


@pytest.fixture(scope="module")
def chosen() -> Callable[..., Recipe]:
    return lambda **settings: recipe(generation=settings, filters=INTEGER)


SAMPLES = 5
VERDICTS = st.lists(
    st.lists(st.booleans(), min_size=SAMPLES, max_size=SAMPLES), min_size=1, max_size=4
)


def shortest_prefix(verdicts: Sequence[bool], enough: int | None) -> int:
    """By trying them all: how many samples from the first on hold ``enough`` right ones."""
    if enough is None:
        return len(verdicts)
    lengths = (m for m in range(len(verdicts) + 1) if sum(verdicts[:m]) >= enough)
    return next(lengths, len(verdicts))


@bounded(max_examples=40, deadline=None)
@given(VERDICTS, st.one_of(st.none(), st.integers(1, 6)), st.lists(st.integers(0, 9), max_size=3))
def test_samples_are_the_shortest_prefix_however_often_it_is_killed(
    chosen: Callable[..., Recipe],
    tmp_path_factory: pytest.TempPathFactory,
    verdicts: list[list[bool]],
    enough: int | None,
    deaths: list[int],
) -> None:
    settings = chosen(samples=SAMPLES, stop_after=enough, seed=3)
    asked = problems(len(verdicts))
    right = {(f"p{i}", s) for i, row in enumerate(verdicts) for s, good in enumerate(row) if good}
    there: list[Completion] = []
    folder = tmp_path_factory.mktemp("g")
    with generation.Verifier(settings) as verifier:
        for sitting, lives in enumerate([*deaths, 10**9]):
            engine = Script(right, dies_after=lives)
            writer = SegmentWriter(folder, prefix=f"{sitting}")
            with contextlib.suppress(KilledError):
                tally = generation.draw(
                    asked, recipe=settings, engine=engine, writer=writer, verifier=verifier,
                    earlier=list(there),
                )  # fmt: skip
            for request in engine.asked:
                assert request.seed == completion_seed(3, request.problem_id, request.sample)
                there.append(Completion(
                    *request.key, f"\\boxed{{{7 if request.key in right else 8}}}",
                    FinishReason.STOP, 10, 100,
                ))  # fmt: skip
    keys = [completion.key for completion in there]
    lengths = [shortest_prefix(row, enough) for row in verdicts]
    assert len(keys) == len(set(keys))
    assert set(keys) == {(f"p{i}", s) for i, m in enumerate(lengths) for s in range(m)}
    got = [sum(row[:m]) for row, m in zip(verdicts, lengths, strict=True)]
    assert tally == Tally(
        prompts=len(verdicts), prompts_verified=sum(map(bool, got)), traces=len(keys),
        traces_verified=sum(got), not_needed=SAMPLES * len(verdicts) - len(keys),
        prompt_tokens=10 * len(keys), completion_tokens=100 * len(keys),
    )  # fmt: skip


def test_cut_off_failed_and_unanswerable_traces_are_not_verified(
    chosen: Callable[..., Recipe], tmp_path: Path
) -> None:
    class Mixed(Script):
        def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
            for request in requests:
                key = request.key
                if key[1] == 0:
                    yield Completion(*key, "\\boxed{7}", FinishReason.LENGTH)
                else:
                    yield Completion(*key, "", FinishReason.ERROR, error="down")

    asked = [*problems(1), Problem("open", "an essay", "")]
    settings = chosen(samples=2, stop_after=1)
    with generation.Verifier(settings) as verifier:
        writer = SegmentWriter(tmp_path, prefix="0")
        tally = generation.draw(
            asked, recipe=settings, engine=Mixed(set()), writer=writer, verifier=verifier
        )
    assert tally == Tally(prompts=2, traces=2, errors=2, uncounted=2)


def test_cost_is_per_million_of_either_kind() -> None:
    tally = Tally(prompts=4, prompts_verified=3, prompt_tokens=2_000_000, completion_tokens=500_000)
    assert tally.cost(Price(input_per_million=0.5, output_per_million=2)) == pytest.approx(2.0)
    assert tally.cost(None) is None
    assert tally.running_yield == 0.75
    assert Tally().running_yield is None
    assert Tally.total([tally.to_json(), tally.to_json()]).prompt_tokens == 4_000_000


@pytest.mark.parametrize("thinking", [Thinking(), Thinking(kind="none")])
@pytest.mark.parametrize("mode", ["plain", "few_shot", "reflection"])
def test_every_mode_asks_the_recipes_question_once(mode: str, thinking: Thinking) -> None:
    asked = recipe(
        generation={"mode": mode}, prompt="Solve: {problem}", thinking=thinking.model_dump()
    )
    text = prompting.teacher_prompt(asked)
    assert text.count("{problem}") == 1
    assert text.endswith("Solve: {problem}")
    assert ("<think>" in text) == (mode != "plain" and thinking.kind == "tags")
    assert traces.protocol(asked).prompt == text


def test_own_examples_are_shown_and_cannot_take_the_question() -> None:
    example = {"problem": "What is {problem}?", "thoughts": "Hm {0}.", "answer": "\\boxed{1}"}
    text = prompting.teacher_prompt(recipe(generation={"mode": "few_shot", "examples": [example]}))
    assert "Hm {0}." in text
    assert text.count("{problem}") == 1
    with pytest.raises(ValidationError, match="few_shot"):
        recipe(generation={"examples": [example]})


def make(folder: Path, settings: Recipe, count: int = 3) -> local.Generation:
    return local.Generation.begin(
        folder, recipe=settings, problems=problems(count), engine={"name": "script"}
    )


def test_a_killed_generation_goes_on_and_ends_with_all_traces(
    chosen: Callable[..., Recipe], tmp_path: Path
) -> None:
    settings = chosen(samples=2, price={"input_per_million": 1, "output_per_million": 2})
    out = tmp_path / "out"
    with pytest.raises(KilledError):
        make(out, settings).draw(Script(set(), dies_after=3), lambda done, total, tokens: None)
    assert not (out / "traces.jsonl.gz").exists()
    engine = Script({("p1", 0)})
    tally = make(out, settings).draw(engine, lambda done, total, tokens: None)
    assert len(engine.asked) == 3
    assert tally.traces == 6
    rows = [json.loads(line) for line in gzip.decompress((out / "traces.jsonl.gz").read_bytes())
            .decode().splitlines()]  # fmt: skip
    assert {(row["problem_id"], row["sample"]) for row in rows} == {
        (f"p{i}", s) for i in range(3) for s in range(2)
    }
    assert set(rows[0]) == {"problem_id", "sample", "completion", "finish_reason"}
    kept = json.loads((out / "tally.json").read_text())
    assert kept["cost"] == pytest.approx((60 + 2 * 600) / 1e6)
    assert json.loads((out / "generation.json").read_text())["teacher_prompt"] == "{problem}"


def test_a_folder_is_one_generation_and_the_price_is_free(
    chosen: Callable[..., Recipe], tmp_path: Path
) -> None:
    make(tmp_path / "out", chosen(samples=2))
    make(tmp_path / "out", chosen(samples=2, price={"input_per_million": 1,
                                                   "output_per_million": 2}))  # fmt: skip
    with pytest.raises(InputError, match="another generation"):
        make(tmp_path / "out", chosen(samples=3))
    with pytest.raises(InputError, match="another prompts"):
        make(tmp_path / "out", chosen(samples=2), count=4)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="holds other files"):
        make(tmp_path / "taken", chosen())


def run_command(
    tmp_path: Path, tiny_qwen: Path, out: Path, *, most_bytes: int | None = None, **generation: Any
) -> subprocess.CompletedProcess[str]:
    settings = recipe(
        tiny_qwen, teacher=str(tiny_qwen), filters=INTEGER,
        generation={"samples": 2, "sampling": {"max_tokens": 8}, **generation},
    )  # fmt: skip
    (tmp_path / "r.json").write_text(settings.model_dump_json())
    (tmp_path / "p.jsonl").write_text(
        "".join(json.dumps(Problem(f"p{i}", f"{i}+1", "7").to_json()) + "\n" for i in range(4))
    )

    def limit() -> None:
        if most_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

    return subprocess.run(
        [sys.executable, "-m", "distiller", "generate", str(tmp_path / "r.json"), "--prompts",
         str(tmp_path / "p.jsonl"), "--out", str(out)],
        capture_output=True, text=True, check=False, preexec_fn=limit,
    )  # fmt: skip


def test_the_command_survives_a_full_disk_and_ends_with_a_table(
    tmp_path: Path, tiny_qwen: Path
) -> None:
    out = tmp_path / "out"
    full = run_command(tmp_path, tiny_qwen, out, most_bytes=1200)
    assert full.returncode == 1, full.stderr
    assert "Traceback" not in full.stderr
    assert full.stderr.splitlines()[-1].startswith("disk: ")
    assert not list(out.rglob("*.part"))
    assert not (out / "traces.jsonl.gz").exists()
    done = run_command(tmp_path, tiny_qwen, out)
    assert done.returncode == 0, done.stderr
    assert "yield" in done.stdout
    assert json.loads((out / "tally.json").read_text())["traces"] == 8


def test_an_endpoint_teaches_and_its_tokens_are_paid(tmp_path: Path, tiny_qwen: Path) -> None:
    async def answer(stub: Stub, request: web.Request, body: Body) -> web.StreamResponse:
        return reply(body, "<think>so</think>\\boxed{7}")

    price = {"input_per_million": 100_000, "output_per_million": 200_000}
    with Stub(answer) as stub:
        done = run_command(
            tmp_path, tiny_qwen, tmp_path / "out", engine="openai", base_url=stub.url,
            model="r1", samples=3, stop_after=1, price=price,
        )  # fmt: skip
        asked = stub.bodies
    assert done.returncode == 0, done.stderr
    assert len(asked) == 4  # each prompt's first trace is right
    assert {body["model"] for body in asked} == {"r1"}
    kept = json.loads((tmp_path / "out" / "tally.json").read_text())
    assert (kept["traces"], kept["not_needed"], kept["yield"]) == (4, 8, 1.0)
    assert kept["cost"] == pytest.approx(4 * (7 * 0.1 + 11 * 0.2))
    assert "11.6000 USD" in done.stdout


def test_an_endpoint_without_address_is_refused_in_a_sentence(
    tmp_path: Path, tiny_qwen: Path
) -> None:
    done = run_command(tmp_path, tiny_qwen, tmp_path / "out", engine="openai")
    assert done.returncode == 2
    assert "base_url" in done.stderr
    assert not (tmp_path / "out").exists()

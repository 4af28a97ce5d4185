"""An endpoint's model measured, and teaching, by a real worker: and its key seen nowhere."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from django.conf import settings
from django.test import Client
from django.urls import reverse

from distiller.recipe import Generation, Prompts, Recipe
from evaluator.benchmarks import arithmetic
from evaluator.protocol import Sampling
from tests.distiller.samples import make_tiny
from tests.evaluator.endpoint_stub import Behaviour, Body, Stub, refuse, reply
from tests.webapp.test_endpoints import database_dump
from webapp.benchmarks.services import install_benchmark, install_prompt_set
from webapp.checkpoints.services import register_folder
from webapp.endpoints import services as endpoints
from webapp.endpoints.models import Endpoint
from webapp.runs import services
from webapp.runs.models import Completion, Run, State

KEY = "sk-never-to-be-seen-4711"
PROBLEMS = arithmetic.generate(20, seed=8)
ANSWERS = {problem.problem: problem.answer for problem in PROBLEMS}

Start = Callable[..., Any]
Wait = Callable[..., Any]


def answering(spoil: Callable[[str, int], bool] = lambda question, asked: False) -> Behaviour:
    """Wants the key; right for even seeds. ``spoil`` (question, times asked) refuses."""
    asked: Counter[int] = Counter()

    async def behave(stub: Stub, request: web.Request, body: Body) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return refuse(401, "no such key")
        [question] = [text for text in ANSWERS if text in body["messages"][-1]["content"]]
        asked[body["seed"]] += 1
        if spoil(question, asked[body["seed"]]):
            await asyncio.sleep(0.3)
            return refuse(400, f"refused, {KEY}")
        right = body["seed"] % 2 == 0
        text = f"<think>\nhm\n</think>\n\\boxed{{{ANSWERS[question] if right else -1}}}"
        return reply(body, text)

    return behave


def command_lines() -> Iterator[bytes]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            yield (folder / "cmdline").read_bytes()
        except OSError:  # it has ended
            continue


@pytest.fixture
def watched() -> Iterator[list[bytes]]:
    """Command lines of all processes, looked at ten times a second, that hold the key."""
    found: list[bytes] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            found.extend(line for line in command_lines() if KEY.encode() in line)

    thread = threading.Thread(target=watch)
    thread.start()
    yield found
    over.set()
    thread.join()


def in_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and KEY.encode() in read(path)]


def read(path: Path) -> bytes:
    if path.suffix != ".zst":
        return path.read_bytes()
    import zstandard

    with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as reader:
        return reader.read()


def final(run: Run) -> bool:
    run.refresh_from_db()
    return run.state in (State.FINISHED, State.FAILED, State.CANCELLED)


@pytest.fixture
def page(user: Any) -> Client:
    client = Client()
    client.force_login(user)
    return client


def test_a_served_model_is_measured_from_the_form_to_the_leaderboard(
    transactional_db: None, user: Any, page: Client, start_worker: Start, wait_until: Wait,
    watched: list[bytes], capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """One problem is refused twice over, so the score is incomplete until a retry mends it."""
    bad = PROBLEMS[3].problem
    benchmark = install_benchmark("arithmetic", PROBLEMS, "made by a test")
    with Stub(answering(lambda question, asked: question == bad and asked <= 2)) as stub:
        page.post(
            reverse("endpoints:register"),
            {"name": "org/served", "base_url": stub.url, "model": "m-1", "key": KEY,
             "concurrency": 4},
        )  # fmt: skip
        endpoint = Endpoint.objects.get()
        start_worker(
            RETORT_ALLOW_PRIVATE_ENDPOINTS="1", RETORT_RETRY_SECONDS="0.1", LOG_LEVEL="DEBUG"
        )
        launched = page.post(
            reverse("runs:evaluate"),
            {"checkpoints": [endpoint.checkpoint_id], "benchmarks": [benchmark.pk],
             "protocol": "quick", "engine": "transformers"},
        )  # fmt: skip
        assert launched.status_code == 302, launched.content.decode()
        run = Run.objects.get()
        wait_until(lambda: final(run))
        assert run.state == State.FINISHED, run.error
        evaluation = run.evaluations.get()
        assert evaluation.metrics["outcomes"]["engine_error"] == 4
        assert not evaluation.metrics["complete"]
        shown = page.get(run.get_absolute_url()).content.decode()
        assert "Retry" in shown
        before = len(stub.bodies)
        page.post(reverse("runs:retry", args=[run.pk]))
        wait_until(lambda: final(run))
        assert run.state == State.FINISHED, run.error
        assert len(stub.bodies) == before + 4, "only what had failed was asked for again"
        assert set(stub.keys) == {f"Bearer {KEY}"}
        assert stub.most_at_once <= 4
    evaluation.refresh_from_db()
    assert evaluation.metrics["complete"]
    seeds = Completion.objects.filter(evaluation=evaluation)
    assert seeds.count() == len(PROBLEMS) * 4
    assert set(seeds.values_list("outcome", flat=True)) == {"correct", "wrong"}
    assert (evaluation.engine["name"], evaluation.engine["model"]) == ("openai", "m-1")
    board = page.get("/?benchmark=arithmetic").content.decode()
    assert ">endpoint</span>" in board
    assert f"m-1 at 127.0.0.1:{stub.port}" in board
    pages = [
        board, shown, *(page.get(address).content.decode() for address in (
            run.get_absolute_url(), evaluation.get_absolute_url(), endpoint.get_absolute_url(),
            endpoint.checkpoint.get_absolute_url(),
            reverse("leaderboard:report_html", args=[evaluation.pk]),
            reverse("leaderboard:report_json", args=[evaluation.pk]),
        ))
    ]  # fmt: skip
    assert not any(KEY in text for text in pages)
    assert not watched
    assert KEY not in database_dump()
    spec = Path(settings.MEDIA_ROOT) / f"runs/{run.pk}/{run.stages.get(kind='evaluate').pk}"
    assert json.loads((spec / "spec.json").read_text())["engine"]["model"] == "m-1"
    assert not in_files(Path(settings.MEDIA_ROOT) / f"runs/{run.pk}")
    output = capfd.readouterr()
    assert KEY not in output.out + output.err


def test_a_served_model_teaches(
    transactional_db: None, user: Any, start_worker: Start, wait_until: Wait, tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Generate from the endpoint, filter, train a tiny base, measure teacher and student."""

    async def apart(stub: Stub, request: web.Request, body: Body) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return refuse(401, "no such key")
        [question] = [text for text in ANSWERS if text in body["messages"][-1]["content"]]
        message = {"content": f"\\boxed{{{ANSWERS[question]}}}", "reasoning_content": "1+1"}
        return reply(body, choices=[{"message": message, "finish_reason": "stop"}])

    install_benchmark("arithmetic", arithmetic.generate(4, seed=99), "made by a test")
    ANSWERS.update({p.problem: p.answer for p in arithmetic.generate(4, seed=99)})
    install_prompt_set("sums", PROBLEMS)
    register_folder(owner=user, name="base", folder=make_tiny("qwen2", tmp_path / "base"))
    sampling = Sampling(max_tokens=16)
    with Stub(apart) as stub:
        endpoints.register(
            owner=user, name="served", base_url=stub.url, model="m", key=KEY, input_price=2,
            output_price=3,
        )  # fmt: skip
        recipe = Recipe(
            teacher="served", base="base", student="student", prompts=Prompts(set="sums"),
            generation=Generation(samples=2, sampling=sampling, shard_prompts=8),
        )  # fmt: skip
        recipe = Recipe.model_validate(
            recipe.model_dump()
            | {
                "training": {"epochs": 1, "max_length_tokens": 128, "learning_rate": 1e-3},
                "evaluation": {
                    "benchmarks": ["arithmetic"], "roles": ["teacher", "student"],
                    "protocol": {"samples": 2, "sampling": sampling.model_dump()},
                },
            }
        )  # fmt: skip
        run = services.launch_distillation(owner=user, recipe=recipe)
        start_worker(RETORT_ALLOW_PRIVATE_ENDPOINTS="1")
        wait_until(lambda: final(run), seconds=150)
    assert run.state == State.FINISHED, (run.error, capfd.readouterr().err[-3000:])
    assert run.config["generation"]["base_url"] == stub.url
    assert (run.config["generation"]["engine"], run.config["generation"]["model"]) == (
        "openai",
        "m",
    )
    price = run.config["generation"]["price"]
    assert (price["input_per_million"], price["output_per_million"]) == (2, 3)
    corpus = run.stages.get(kind="filter").result
    assert corpus["funnel"]["steps"][0]["kept"] == 2 * len(PROBLEMS)
    kept = Path(settings.MEDIA_ROOT, corpus["corpus"]).parent / "kept.jsonl"
    rows = [json.loads(line) for line in kept.read_text().splitlines()]
    assert rows
    assert all(row["completion"].startswith("<think>\n1+1\n</think>\n\n") for row in rows)
    scores = {each.role: each for each in run.evaluations.all()}
    assert scores["teacher"].pass_at_1 == 1.0
    assert scores["teacher"].engine["name"] == "openai"
    assert scores["student"].engine["name"] == "transformers"
    assert KEY not in database_dump()
    assert not in_files(Path(settings.MEDIA_ROOT) / f"runs/{run.pk}")


def test_without_the_setting_a_private_endpoint_fails_the_run_in_a_sentence(
    transactional_db: None, user: Any, start_worker: Start, wait_until: Wait
) -> None:
    benchmark = install_benchmark("arithmetic", PROBLEMS, "made by a test")
    with Stub(answering()) as stub:
        endpoint = endpoints.register(
            owner=user, name="served", base_url=stub.url, model="m", key=KEY
        )
        run = services.launch_evaluation(
            owner=user, checkpoint=endpoint.checkpoint, benchmark=benchmark,
            protocol=services.preset("greedy"),
        )  # fmt: skip
        start_worker(RETORT_ALLOW_PRIVATE_ENDPOINTS="0")
        wait_until(lambda: final(run))
        assert stub.requests == 0
    assert run.state == State.FAILED
    assert "RETORT_ALLOW_PRIVATE_ENDPOINTS" in run.error

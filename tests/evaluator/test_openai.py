"""The openai engine against an endpoint that misbehaves in every way that endpoints do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import time
from collections import Counter
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from evaluator.engines import create, drawing
from evaluator.engines.base import Request
from evaluator.engines.endpoint import RefusedError, checked_url, read_answer
from evaluator.engines.pacing import Pace
from evaluator.errors import InputError, TransientEngineError
from evaluator.protocol import Protocol, Sampling, Thinking
from evaluator.records import Completion, FinishReason
from tests.evaluator.endpoint_stub import Body, Stub, refuse, reply

REPOSITORY = Path(__file__).parents[2]
KEY = "sk-never-to-be-seen-4711"
SAMPLING = Sampling(max_tokens=100)
MESSAGES = '[{"role": "user", "content": "1+1"}]'


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "_BACKOFF_SECONDS", (0.02, 0.1))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def engine(stub: Stub, **options: Any) -> Any:
    return create({"name": "openai", "model": "m", "base_url": stub.url, **options})


def requests(count: int) -> list[Request]:
    return [Request("p", sample, MESSAGES, seed=1000 + sample) for sample in range(count)]


def drawn(stub: Stub, count: int, **options: Any) -> dict[int, Completion]:
    found: dict[int, Completion] = {}
    for completion in engine(stub, **options).generate(requests(count), SAMPLING):
        assert completion.sample not in found
        found[completion.sample] = completion
    return found


def test_each_request_is_asked_once_with_its_seed_and_the_protocols_settings() -> None:
    with Stub() as stub:
        found = drawn(stub, 50)
    assert set(found) == set(range(50))
    assert Counter(body["seed"] for body in stub.bodies) == Counter(range(1000, 1050))
    assert set(stub.keys) == {f"Bearer {KEY}"}
    for body in stub.bodies:
        assert body["messages"] == [{"role": "user", "content": "1+1"}]
        assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0.6, 0.95, 100)
        assert "top_k" not in body, "an unknown server is sent no field that it may not know"
    assert found[3] == Completion(
        "p", 3, "\\boxed{1}", FinishReason.STOP, prompt_tokens=7, completion_tokens=11, seed=1003
    )


def test_every_transient_fault_is_outlived() -> None:
    """A third of all answers: 500, 503, 429, cut off, not JSON, reset, an error in a 200."""
    dice = random.Random(1)

    async def faulty(stub: Stub, request: web.Request, body: Body) -> web.StreamResponse:
        assert request.transport is not None
        match dice.randrange(21):
            case 0:
                return refuse(500, "internal")
            case 1:
                return refuse(503, "loading", **{"Retry-After": formatdate(usegmt=True)})
            case 2:
                return refuse(429, "slow down")
            case 3:
                return web.Response(text='{"choices": [{"mess', content_type="application/json")
            case 4:
                response = web.StreamResponse(headers={"Content-Length": "5000"})
                await response.prepare(request)
                await response.write(b'{"choices"')
                request.transport.abort()
                return response
            case 5:
                request.transport.abort()
                return web.Response()
            case 6:
                return web.json_response({"error": {"message": "upstream", "code": 502}})
        return reply(body)

    with Stub(faulty) as stub:
        found = drawn(stub, 150, retries=12)
    assert set(found) == set(range(150))
    assert {completion.error for completion in found.values()} == {None}
    assert len(stub.bodies) > 180


def test_a_request_that_hangs_is_given_up_and_asked_again() -> None:
    async def hanging(stub: Stub, request: web.Request, body: Body) -> web.StreamResponse:
        if body["seed"] % 4 == 0 and [b["seed"] for b in stub.bodies].count(body["seed"]) == 1:
            await asyncio.sleep(30)
        return reply(body, usage=None)

    with Stub(hanging) as stub:
        found = drawn(stub, 20, timeout_seconds=0.5)
    assert [found[sample].error for sample in range(20)] == [None] * 20
    assert found[0].completion_tokens is None
    assert len(stub.bodies) == 25


def test_a_429_pauses_all_requests_for_as_long_as_it_asks() -> None:
    refused_at: list[float] = []
    later: list[float] = []

    async def limited(stub: Stub, request: web.Request, body: Body) -> web.StreamResponse:
        if not refused_at:
            refused_at.append(time.monotonic())
            return refuse(429, "slow down", **{"Retry-After": "1"})
        if time.monotonic() > refused_at[0] + 0.2:
            later.append(time.monotonic())
        else:
            await asyncio.sleep(0.05)
        return reply(body)

    with Stub(limited) as stub:
        found = drawn(stub, 40)
    assert len(found) == 40
    assert min(later) - refused_at[0] > 0.95


def test_a_rate_limit_is_no_failure_however_often_it_says_no() -> None:
    asked: Counter[int] = Counter()

    async def stern(stub: Stub, request: web.Request, body: Body) -> web.StreamResponse:
        asked[body["seed"]] += 1
        return reply(body) if asked[body["seed"]] > 6 else refuse(429, "slow down")

    with Stub(stern) as stub:
        found = drawn(stub, 8, retries=1)
    assert [completion.error for completion in found.values()] == [None] * 8


def test_concurrency_is_bounded_and_falls_below_what_is_refused() -> None:
    async def narrow(stub: Stub, request: web.Request, body: Body) -> web.StreamResponse:
        if stub.at_once > 10:
            return refuse(429, "too many at once")
        await asyncio.sleep(0.01)
        return reply(body)

    with Stub() as stub:
        drawn(stub, 300, concurrency=20)
    assert 10 < stub.most_at_once <= 20
    with Stub(narrow) as stub:
        assert len(drawn(stub, 300, concurrency=64)) == 300
    assert len(stub.bodies) < 450, "an endpoint that says no is not asked over and over"


def test_the_pace_falls_with_latency_and_recovers() -> None:
    pace = Pace(64)
    for _ in range(200):
        pace.succeeded(1.0, 100, under_way=pace.limit)
    assert pace.limit == 64
    for _ in range(60):  # eight times as long a response for eight times as many tokens is no delay
        pace.succeeded(8.0, 800, under_way=pace.limit)
    assert pace.limit == 64
    for _ in range(100):
        pace.succeeded(8.0, 100, under_way=pace.limit)
    slow = pace.limit
    assert slow < 40
    for _ in range(300):
        pace.succeeded(1.0, 100, under_way=pace.limit)
    assert pace.limit == 64


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 100), st.integers(0, 5000))), st.integers(1))
def test_the_pace_stays_within_its_bounds(events: list[tuple[bool, float, int]], most: int) -> None:
    pace = Pace(most)
    for now, (good, seconds, tokens) in enumerate(events):
        if good:
            pace.succeeded(seconds, tokens, under_way=pace.limit)
        else:
            pace.refused(sent_at=now - seconds, now=now)
        assert 1 <= pace.limit <= most


def test_refusals_of_one_round_trip_cut_the_limit_once() -> None:
    pace = Pace(8)
    for _ in range(8):
        pace.refused(sent_at=1.0, now=2.0)
    assert pace.limit == 4
    pace.refused(sent_at=3.0, now=4.0)
    assert pace.limit == 2


@pytest.mark.parametrize(
    ("status", "message", "complaint"),
    [
        (401, f"Incorrect API key provided: {KEY}", "HTTP 401: the key is missing or not accepted"),
        (403, "no", "HTTP 403: the key"),
        (404, "The model `m` does not exist.", "HTTP 404: The model `m` does not exist; check"),
        (400, f"max_tokens is too large for {KEY}", "HTTP 400: max_tokens is too large for \\*\\*"),
        (429, "insufficient_quota", "HTTP 429"),
        (307, "", "HTTP 307: it redirects to elsewhere.example, which is not followed"),
    ],
)
def test_what_will_not_mend_ends_the_run_at_once_in_one_sentence(
    status: int, message: str, complaint: str
) -> None:
    async def wrong(stub: Stub, request: web.Request, body: Body) -> web.StreamResponse:
        error = {"message": message, "code": message}
        headers = {"Location": "http://user:pw@elsewhere.example/v1"} if status == 307 else {}
        return web.json_response({"error": error}, status=status, headers=headers)

    with Stub(wrong) as stub:
        with pytest.raises(InputError, match=complaint) as raised:
            drawn(stub, 100)
        assert len(stub.bodies) <= 8
    assert KEY not in str(raised.value)
    assert "pw" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_a_prompt_that_alone_is_refused_is_an_error_of_its_own() -> None:
    async def picky(stub: Stub, request: web.Request, body: Body) -> web.StreamResponse:
        return refuse(400, "too long") if body["seed"] == 1090 else reply(body)

    with Stub(picky) as stub:
        found = drawn(stub, 100)
    assert len(found) == 100
    assert found[90].error == "HTTP 400: too long"
    assert found[90].finish_reason is FinishReason.ERROR
    assert sum(completion.error is not None for completion in found.values()) == 1


@pytest.mark.parametrize("status", [400, 500])
def test_what_alone_is_left_and_is_refused_again_is_its_own_error_and_not_the_endpoints(
    status: int,
) -> None:
    """A run goes on with the samples that failed: all that it asks now is refused, once more."""

    async def picky(stub: Stub, request: web.Request, body: Body) -> web.StreamResponse:
        return refuse(status, "never") if body["seed"] < 1003 else reply(body)

    with Stub(picky) as stub:
        again = [replace(request, again=True) for request in requests(3)]
        found = list(engine(stub, retries=0).generate(again, SAMPLING))
        assert {each.error for each in found} == {f"HTTP {status}: never"}
        assert len(found) == 3
        # Within one sitting the engine knows by itself that others were answered.
        source = engine(stub, retries=0)
        assert sum(each.error is None for each in source.generate(requests(9)[3:], SAMPLING)) == 6
        found = list(source.generate(requests(2), SAMPLING))
        assert {each.error for each in found} == {f"HTTP {status}: never"}
        with pytest.raises(InputError):
            list(engine(stub, retries=0).generate(requests(3), SAMPLING))


def test_what_fails_after_all_tries_is_a_row_with_its_reason() -> None:
    async def broken(stub: Stub, request: web.Request, body: Body) -> web.StreamResponse:
        return refuse(500, "cannot") if body["seed"] % 10 == 7 else reply(body)

    with Stub(broken) as stub:
        found = drawn(stub, 100, retries=2)
    failed = {sample for sample, completion in found.items() if completion.error is not None}
    assert failed == set(range(7, 100, 10))
    assert found[7].error == "HTTP 500: cannot (3 tries)"
    assert Counter(body["seed"] for body in stub.bodies)[1007] == 3


def test_an_endpoint_that_never_worked_is_dead_and_one_that_dies_keeps_what_it_gave() -> None:
    async def useless(stub: Stub, request: web.Request, body: Body) -> web.StreamResponse:
        return refuse(500, "cannot")

    with Stub(useless) as stub, pytest.raises(InputError, match=r"no request succeeded .HTTP 500"):
        drawn(stub, 3)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(InputError, match=r"no connection.*check base_url"):
        create({"name": "openai", "model": "m", "base_url": f"http://127.0.0.1:{port}/v1"})

    found: list[Completion] = []

    def draw(stub: Stub) -> None:
        for completion in engine(stub, retries=2, concurrency=16).generate(
            requests(5000), SAMPLING
        ):
            found.append(completion)
            if len(found) == 100:
                stub.stop()

    with (
        Stub() as stub,
        pytest.raises(TransientEngineError, match=r"stopped answering.*start again to go on"),
    ):
        draw(stub)
    assert sum(completion.error is None for completion in found) >= 100
    assert sum(completion.error is not None for completion in found) <= 16


def test_reasoning_is_understood_wherever_it_stands() -> None:
    def message(**fields: Any) -> Any:
        return {"choices": [{"message": fields, "finish_reason": "stop"}]}

    for fields in (
        {"content": "2", "reasoning_content": "hm"},
        {"content": "2", "reasoning": "hm"},
        {"content": "2", "reasoning": "hm", "reasoning_content": "hm"},
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                {"type": "text", "text": "2"},
            ]
        },
    ):
        answer = read_answer(message(**fields))
        assert (answer.text, answer.reasoning) == ("2", "hm")
        assert answer.completion_tokens is None
    cut = read_answer({"choices": [{"message": {"content": None, "reasoning": "h"},
                                    "finish_reason": "length"}]})  # fmt: skip
    assert (cut.text, cut.reasoning, cut.finish_reason) == ("", "h", FinishReason.LENGTH)
    plain = read_answer({"choices": [{"text": "2", "finish_reason": "content_filter"}],
                         "usage": {"completion_tokens": True, "prompt_tokens": -1}})  # fmt: skip
    assert plain.finish_reason is FinishReason.UNKNOWN
    for word, meant in (("model_length", "length"), ("MAX_TOKENS", "length"), ("eos", "stop")):
        told = read_answer({"choices": [{"text": "2", "finish_reason": word}]})
        assert told.finish_reason == meant
    assert plain.completion_tokens is plain.prompt_tokens is None
    usage = {"completion_tokens": 2**31, "prompt_tokens": 2**31 - 1}  # no column holds the first
    large = read_answer({"choices": [{"text": "2"}], "usage": usage})
    assert (large.completion_tokens, large.prompt_tokens) == (None, 2**31 - 1)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(
                st.sampled_from(["choices", "message", "content", "text", "usage", "reasoning"]),
                inner,
            )
        ),
        max_leaves=8,
    )
)
def test_any_json_is_an_answer_or_a_refusal(value: Any) -> None:
    with contextlib.suppress(RefusedError):
        assert isinstance(read_answer(value).text, str)


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("127.0.0.1:8000", "give an address such as"),
        ("ftp://host/v1", "give an address such as"),
        ("http://user:pw@host/v1", "leave out user, password and query"),
        ("http://host/v1?key=1", "leave out user, password and query"),
        ("http://host:port/v1", "it is no address"),
    ],
)
def test_an_address_that_is_none_or_holds_a_secret_is_refused(url: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        checked_url(url)


def test_the_key_is_the_named_variables_and_is_described_nowhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTHER_KEY", "sk-other")
    with Stub() as stub:
        source = engine(stub, key_variable="OTHER_KEY")
        assert len(list(source.generate(requests(1), SAMPLING))) == 1
        assert stub.keys == ["Bearer sk-other"]
        assert "sk-other" not in json.dumps(source.describe()) + repr(source)
        with pytest.raises(InputError, match="variable NO_SUCH_KEY is not set"):
            engine(stub, key_variable="NO_SUCH_KEY")
        monkeypatch.setenv("OTHER_KEY", "sk-\n-x")
        with pytest.raises(InputError, match="OTHER_KEY: the key holds a character"):
            engine(stub, key_variable="OTHER_KEY")
        monkeypatch.delenv("OPENAI_API_KEY")
        assert len(drawn(stub, 1)) == 1
        assert stub.keys[-1] is None


def test_a_servers_own_sampling_defaults_and_limits_are_taken_into_account() -> None:
    models = [{"id": "m", "owned_by": "vllm", "max_model_len": 100}]
    with Stub(models=models) as stub:
        source = engine(stub)
        assert source.describe()["context_tokens"] == 100
        list(source.generate(requests(1), SAMPLING))
        list(source.generate(requests(1), Sampling(max_tokens=50, stop=("\n",))))
    [full, short] = stub.bodies
    assert "max_tokens" not in full, "the server gives what room the prompt leaves"
    assert (short["max_tokens"], short["stop"]) == (50, ["\n"])
    assert (full["top_k"], full["min_p"], full["repetition_penalty"]) == (-1, 0.0, 1.0)


def test_the_other_name_of_the_token_limit_is_learnt() -> None:
    async def newer(stub: Stub, request: web.Request, body: Body) -> web.StreamResponse:
        if "max_tokens" in body:
            return refuse(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens'.")
        return reply(body)

    with Stub(newer) as stub:
        assert len(drawn(stub, 30)) == 30
    assert stub.bodies[-1]["max_completion_tokens"] == 100
    assert len(stub.bodies) <= 38


def test_prompts_are_messages_or_rendered_here(tiny_checkpoint: Path) -> None:
    with Stub() as stub:
        chat = engine(stub)
        assert json.loads(chat.render("{x}", prompt="{problem}!", protocol=Protocol())) == [
            {"role": "user", "content": "{x}!"}
        ]
        asked = chat.render("1", prompt="{problem}", protocol=Protocol(system_prompt="Add."))
        assert json.loads(asked)[0] == {"role": "system", "content": "Add."}
        for protocol in (Protocol(chat_template="x"), Protocol(thinking=Thinking(forced=True))):
            with pytest.raises(InputError, match="renders the prompt itself"):
                chat.render("1", prompt="{problem}", protocol=protocol)
        with pytest.raises(InputError, match="context_tokens: engine openai"):
            engine(stub, context_tokens=10)

        plain = engine(stub, api="completions")
        with pytest.raises(InputError, match="needs a tokenizer folder"):
            plain.render("1", prompt="{problem}", protocol=Protocol())
        text = plain.render("1+", prompt="{problem}", protocol=Protocol(chat_template="none"))
        list(plain.generate([Request("p", 0, text, 0)], SAMPLING))
        assert stub.bodies[-1]["prompt"] == "1+"

        own = engine(stub, api="completions", tokenizer=str(tiny_checkpoint), context_tokens=20)
        text = own.render("1+", prompt="{problem}", protocol=Protocol())
        [completion] = own.generate([Request("p", 0, text, 0, start="<think>")], SAMPLING)
        assert len(stub.bodies[-1]["prompt"]) == 4
        assert stub.bodies[-1]["max_tokens"] == 16
        assert completion.text == "<think>\\boxed{1}"
        long = Request("long", 0, "1" * 30, 0)
        with pytest.raises(InputError, match="problem long: its prompt has 30 tokens"):
            own.generate([long], SAMPLING)

"""Engine ``openai``: any endpoint that speaks OpenAI's HTTP interface. Torch-free.

An event loop runs while the caller waits for the next completion, in the caller's own thread, so
that an interrupt ends the requests under way and nothing else. One attempt is one task; what comes
of it (a completion, another attempt later, the end of the run) is decided in one place.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
import os
import random
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import aiohttp

from evaluator.engines.base import Request
from evaluator.engines.endpoint import (
    NEUTRAL,
    Answer,
    Endpoint,
    Greeting,
    RefusedError,
    check_key,
)
from evaluator.engines.pacing import Pace
from evaluator.engines.prompting import Prompter
from evaluator.errors import EngineError, InputError, TransientEngineError
from evaluator.protocol import Protocol, Sampling
from evaluator.records import Completion, FinishReason

KEY_VARIABLE = "OPENAI_API_KEY"
CONCURRENCY = 64
TIMEOUT_SECONDS = 3600.0  # 32,768 tokens at 10 tokens/s
RETRIES = 5

_FIRST_CONTACT_TRIES = 3
_BACKOFF_SECONDS = (0.5, 30.0)  # the first, and the longest
_LONGEST_WAIT_SECONDS = 600.0  # an endpoint that asks for more is left for another day
_PATIENCE_SECONDS = 300.0  # so long 429s may follow upon 429s without counting as failures
_STOP_AFTER = 8  # completions given up in a row, for the endpoint's own reasons


class DeadEndpointError(InputError):
    """The endpoint answered nothing at all: a wrong address, or a server that is not up (yet)."""

    transient = True


class OpenAIEngine:
    """Asks ``/chat/completions`` (or ``/completions``), many requests at a time.

    ``model`` is the name by which the endpoint serves it. The key is read from the environment
    variable ``key_variable``; none is sent where the default one is not set. With ``api``
    ``"completions"`` prompts are rendered here: with the template in the folder ``tokenizer``, and
    sent as token ids, or as plain text where the protocol's ``chat_template`` is ``"none"``. With
    ``public_only`` addresses of private networks are refused: somebody else chose this one.
    """

    OPTIONS: ClassVar[tuple[str, ...]] = (
        "model", "base_url", "key_variable", "api", "tokenizer", "concurrency",
        "timeout_seconds", "retries", "context_tokens", "public_only",
    )  # fmt: skip

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        key_variable: str | None = None,
        api: str = "chat",
        tokenizer: str | Path | None = None,
        concurrency: int = CONCURRENCY,
        timeout_seconds: float = TIMEOUT_SECONDS,
        retries: int = RETRIES,
        context_tokens: int | None = None,
        public_only: bool = False,
    ) -> None:
        if base_url is None:
            raise InputError("base_url: engine openai needs one, such as http://127.0.0.1:8000/v1.")
        if api not in ("chat", "completions"):
            raise InputError(f"api: {api!r} is not one of chat, completions.")
        if concurrency < 1:
            raise InputError("concurrency: must be at least 1.")
        if retries < 0 or timeout_seconds <= 0:
            raise InputError("retries must be 0 or more, and timeout_seconds above 0.")
        if tokenizer is not None and api == "chat":
            raise InputError("tokenizer: a chat endpoint has its own; use api completions.")
        if context_tokens is not None and tokenizer is None:
            raise InputError(
                "context_tokens: engine openai can hold to it only with a tokenizer (api "
                "completions); leave it out of the protocol."
            )
        self._model = model
        self._api = api
        self._concurrency = concurrency
        self._retries = retries
        self._prompter = None if tokenizer is None else Prompter(Path(tokenizer))
        self._context = (
            None if self._prompter is None else self._prompter.context_tokens(context_tokens)
        )
        self._endpoint = Endpoint(
            base_url,
            key=read_key(key_variable),
            timeout_seconds=timeout_seconds,
            public_only=public_only,
        )
        self._proven = False  # that the endpoint answers what we ask in the way we ask it
        self._greeting = asyncio.run(self._greet())

    async def _greet(self) -> Greeting:
        """Find out before the work that somebody is there."""
        for attempt in itertools.count(1):
            try:
                return await self._endpoint.greet(self._model)
            except RefusedError as refusal:
                if not refusal.transient:
                    raise InputError(f"endpoint {self._endpoint.url}: {refusal}.") from None
                if attempt == _FIRST_CONTACT_TRIES:
                    raise DeadEndpointError(
                        f"endpoint {self._endpoint.url}: {refusal}; check base_url and that the "
                        "server is up."
                    ) from None
            await asyncio.sleep(_backoff(attempt))
        raise AssertionError("the loop returns or raises")

    def describe(self) -> dict[str, Any]:
        """See :meth:`evaluator.engines.base.Engine.describe`."""
        return {
            "name": "openai",
            "base_url": self._endpoint.url,
            "model": self._model,
            "api": self._api,
            "server": self._greeting.server,
            "context_tokens": self._context or self._greeting.context_tokens,
            "chat_template": None if self._prompter is None else self._prompter.template_hash,
        }

    def render(self, problem: str, *, prompt: str, protocol: Protocol) -> str:
        """What is sent: the messages as JSON, or the rendered text for ``/completions``.

        Raises InputError where the protocol asks for what only a rendered prompt can hold.
        """
        if self._prompter is not None:
            return self._prompter.render(problem, prompt=prompt, protocol=protocol)
        question = prompt.replace("{problem}", problem)
        system = protocol.system_prompt
        if self._api == "completions":
            if protocol.chat_template != "none":
                raise InputError(
                    'chat_template: api completions needs a tokenizer folder, or "none" for '
                    "plain text."
                )
            text = f"{system}\n\n{question}" if system else question
            return text + protocol.thinking.response_start
        if protocol.chat_template is not None or protocol.thinking.response_start:
            field = "thinking.forced" if protocol.chat_template is None else "chat_template"
            raise InputError(
                f"{field}: a chat endpoint renders the prompt itself; use api completions with a "
                "tokenizer."
            )
        messages = [{"role": "user", "content": question}]
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        return json.dumps(messages, ensure_ascii=False)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
        """See :meth:`evaluator.engines.base.Engine.generate`.

        A request that fails for good comes as a completion with ``error``. Raises InputError for
        what the endpoint refuses from the start (key, model, parameters), TransientEngineError when
        it stops answering. What came before is yielded first.
        """
        asks = [_Ask(request, self._prompt(request, sampling)) for request in requests]
        return self._run(asks, sampling)

    def _prompt(self, request: Request, sampling: Sampling) -> dict[str, Any]:
        """The fields of the body that depend on the prompt."""
        if self._api == "chat":
            return {"messages": request.prompt}
        if self._prompter is None or self._context is None:
            return {"prompt": request.prompt}
        ids = self._prompter.encode(request, context=self._context)
        room = self._context - len(ids)
        return {"prompt": ids, "max_tokens": min(sampling.max_tokens, room)}

    def _run(self, asks: list[_Ask], sampling: Sampling) -> Iterator[Completion]:
        drawing = _Drawing(
            self._endpoint,
            deque(asks),
            path="chat/completions" if self._api == "chat" else "completions",
            fields=self._fields(sampling),
            pace=Pace(self._concurrency),
            retries=self._retries,
            proven=self._proven or any(ask.request.again for ask in asks),
        )
        asks.clear()
        loop = asyncio.new_event_loop()
        try:
            while ended := loop.run_until_complete(drawing.next()):
                self._proven = self._proven or any(each.error is None for each in ended)
                yield from ended
        except KeyboardInterrupt:
            yield from drawing.take()  # these came before the interrupt
            raise
        finally:
            loop.run_until_complete(drawing.close())
            loop.close()

    def _fields(self, sampling: Sampling) -> dict[str, Any]:
        """The fields of the body that are the same for all requests."""
        fields: dict[str, Any] = {
            "model": self._model,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            **(NEUTRAL[self._greeting.server] if self._greeting.server else {}),
        }
        # Where the context is known and is not longer than what is asked for, such a server gives
        # what room the prompt leaves, if it is not told a number that it would have to refuse.
        context = self._greeting.context_tokens
        if context is None or sampling.max_tokens < context:
            fields["max_tokens"] = sampling.max_tokens
        if sampling.stop:
            fields["stop"] = list(sampling.stop)
        return fields

    def close(self) -> None:
        """See :meth:`evaluator.engines.base.Engine.close`; connections end with ``generate``."""


@dataclass(slots=True)
class _Ask:
    """A request and what has become of it so far."""

    request: Request
    prompt: Mapping[str, Any]
    tries: int = 0
    failures: int = 0  # tries that count: an endpoint may say "later" more often than it may fail


class _Drawing:
    """All requests of one ``generate``, under way, waiting to be tried again, or not yet sent."""

    def __init__(
        self,
        endpoint: Endpoint,
        fresh: deque[_Ask],
        *,
        path: str,
        fields: dict[str, Any],
        pace: Pace,
        retries: int,
        proven: bool,
    ) -> None:
        self._endpoint = endpoint
        self._fresh = fresh
        self._path = path
        self._fields = fields
        self._pace = pace
        self._retries = retries
        self._proven = proven
        self._limit_name = "max_tokens"  # newer models of OpenAI's know another name only
        self._order = itertools.count()
        self._later: list[tuple[float, int, _Ask]] = []  # heap by the time at which each is due
        self._under_way: set[asyncio.Task[None]] = set()
        self._paused_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._ended: list[Completion] = []
        self._doubted: list[Completion] = []  # given up before anything ever succeeded
        self._answered = 0
        self._latest_answer = 0.0  # or the beginning
        self._given_up_in_row = 0
        self._error: Exception | None = None
        self._woken = asyncio.Event()
        self._session: aiohttp.ClientSession | None = None

    async def next(self) -> list[Completion]:
        """Completions that ended since the last call, at least one; empty when all have.

        Raises what ended the run, once every completion has been handed out.
        """
        self._loop = asyncio.get_running_loop()
        if self._session is None:
            self._session = self._endpoint.session()
            self._latest_answer = self._loop.time()
        self._fill()
        while not self._ended and self._error is None and self._open:
            self._woken.clear()
            await self._woken.wait()
        if not self._ended and self._error is None and self._doubted:
            why = self._doubted[-1].error
            self._error = DeadEndpointError(
                f"endpoint {self._endpoint.url}: no request succeeded ({why})."
            )
        if not self._ended and self._error is not None:
            raise self._error
        return self.take()

    def take(self) -> list[Completion]:
        """Hand out what ended, without waiting."""
        ended, self._ended = self._ended, []
        return ended

    async def close(self) -> None:
        """Give up what is under way and close the connections."""
        if self._timer is not None:
            self._timer.cancel()
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    @property
    def _open(self) -> bool:
        return bool(self._fresh or self._later or self._under_way)

    def _fill(self) -> None:
        """Send what may be sent now, and see to it that the rest is thought of in time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._loop.time()
        if self._error is not None:
            return
        if now >= self._paused_until:
            # Those that wait for another try keep their places, so that a failing endpoint is not
            # sent ever new requests.
            while len(self._under_way) < self._pace.limit:
                if self._later and self._later[0][0] <= now:
                    ask = heapq.heappop(self._later)[2]
                elif self._fresh and len(self._under_way) + len(self._later) < self._pace.limit:
                    ask = self._fresh.popleft()
                else:
                    break
                task = self._loop.create_task(self._attempt(ask))
                self._under_way.add(task)
                task.add_done_callback(self._done)
        if not self._open:
            self._woken.set()
        elif len(self._under_way) < self._pace.limit and (self._later or self._fresh):
            due = self._later[0][0] if self._later else self._paused_until
            self._timer = self._loop.call_at(max(due, self._paused_until), self._fill)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._stop(error if isinstance(error, Exception) else EngineError(str(error)))
        self._fill()

    def _stop(self, error: Exception) -> None:
        self._error = self._error or error
        self._woken.set()

    async def _attempt(self, ask: _Ask) -> None:
        """Send one request and deal with what comes back."""
        assert self._session is not None
        sent_at, name = self._loop.time(), self._limit_name
        body = self._body(ask)
        try:
            answer = await self._endpoint.ask(self._session, self._path, body)
        except RefusedError as refusal:
            self._refused(ask, refusal, sent_at=sent_at, limit_name=name)
            return
        now = self._loop.time()
        self._answered += 1
        self._latest_answer = now
        self._given_up_in_row = 0
        self._ended += [*self._doubted, _completion(ask.request, answer)]
        self._doubted = []
        self._pace.succeeded(
            now - sent_at, answer.completion_tokens or 1, under_way=len(self._under_way)
        )
        self._woken.set()

    def _body(self, ask: _Ask) -> bytes:
        fields = {**self._fields, **ask.prompt, "seed": ask.request.seed}
        if isinstance(messages := fields.get("messages"), str):
            fields["messages"] = json.loads(messages)
        if "max_tokens" in fields and self._limit_name != "max_tokens":
            fields[self._limit_name] = fields.pop("max_tokens")
        return json.dumps(fields).encode()

    def _refused(
        self, ask: _Ask, refusal: RefusedError, *, sent_at: float, limit_name: str
    ) -> None:
        """Try again later, give the request up, or end the run."""
        now = self._loop.time()
        if limit_name == "max_tokens" and "max_completion_tokens" in str(refusal):
            self._limit_name = "max_completion_tokens"
            self._try_at(now, ask)
            return
        if not refusal.transient:
            if (self._answered or self._proven) and refusal.own_fault:
                self._give_up(ask, refusal)
            else:
                self._stop(self._permanent(ask, refusal))
            return
        if refusal.overloaded:
            self._pace.refused(sent_at=sent_at, now=now)
        wait = refusal.wait_seconds or 0.0
        if wait > _LONGEST_WAIT_SECONDS:
            self._stop(
                TransientEngineError(
                    f"endpoint {self._endpoint.url}: {refusal}, and it asks to wait {wait:.0f} s; "
                    "start again then."
                )
            )
            return
        self._paused_until = max(self._paused_until, now + wait)
        ask.tries += 1
        if refusal.status != 429 or now - self._latest_answer > _PATIENCE_SECONDS:
            ask.failures += 1
        tries = self._retries + 1
        if not self._answered and refusal.status is None:
            tries = min(tries, _FIRST_CONTACT_TRIES)
        if ask.failures >= tries:
            self._give_up(ask, refusal)
            return
        self._try_at(now + wait + _backoff(ask.tries), ask)

    def _try_at(self, due: float, ask: _Ask) -> None:
        heapq.heappush(self._later, (due, next(self._order), ask))

    def _permanent(self, ask: _Ask, refusal: RefusedError) -> InputError:
        remedy = {
            401: "check the key's environment variable",
            403: "check the key's environment variable",
            404: "check model and base_url",
        }.get(refusal.status or 0, f"it was asked for problem {ask.request.problem_id}")
        return InputError(f"endpoint {self._endpoint.url}: {refusal}; {remedy}.")

    def _give_up(self, ask: _Ask, refusal: RefusedError) -> None:
        """Record a failed completion; end the run when the endpoint seems to be gone."""
        request = ask.request
        tried = f" ({ask.failures} tries)" if ask.failures > 1 else ""
        failed = Completion(
            problem_id=request.problem_id,
            sample=request.sample,
            text="",
            finish_reason=FinishReason.ERROR,
            seed=request.seed,
            error=f"{refusal}{tried}",
        )
        self._given_up_in_row += 1
        if not self._answered and (refusal.down or not self._proven):
            self._doubted.append(failed)
            if len(self._doubted) >= _STOP_AFTER or refusal.status is None:
                self._stop(
                    DeadEndpointError(
                        f"endpoint {self._endpoint.url}: no request succeeded ({failed.error})."
                    )
                )
            return
        self._ended.append(failed)
        self._woken.set()
        if refusal.down and self._given_up_in_row >= _STOP_AFTER:
            self._stop(
                TransientEngineError(
                    f"endpoint {self._endpoint.url}: it stopped answering ({failed.error}); what "
                    "came before is kept, start again to go on."
                )
            )


def read_key(variable: str | None) -> str | None:
    """The key in the environment; None where the default variable is not set.

    Raises InputError for a variable that was named and is not set, and for a key that cannot stand
    in a header.
    """
    name = variable or KEY_VARIABLE
    key = os.environ.get(name, "").strip()
    if not key:
        if variable is not None:
            raise InputError(f"key_variable: the environment variable {name} is not set.")
        return None
    check_key(key, name)
    return key


def _completion(request: Request, answer: Answer) -> Completion:
    return Completion(
        problem_id=request.problem_id,
        sample=request.sample,
        text=request.start + answer.text,
        finish_reason=answer.finish_reason,
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
        seed=request.seed,
        reasoning=answer.reasoning,
    )


def _backoff(tries: int) -> float:
    """Seconds before the next try: exponential, with full jitter over its upper half."""
    first, longest = _BACKOFF_SECONDS
    return random.uniform(0.5, 1.0) * min(longest, first * 2.0 ** min(tries - 1, 16))

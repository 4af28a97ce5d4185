"""All requests of one ``generate`` to an endpoint: under way, to be tried again, or not yet sent.

One attempt is one task; what comes of it (a completion, another attempt later, the end of the run)
is decided in one place.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from evaluator.engines.base import Request
from evaluator.engines.endpoint import Answer, Endpoint, RefusedError
from evaluator.engines.pacing import Pace
from evaluator.errors import EngineError, InputError, TransientEngineError
from evaluator.records import Completion, FinishReason

FIRST_CONTACT_TRIES = 3
_BACKOFF_SECONDS = (0.5, 30.0)  # the first, and the longest
_LONGEST_WAIT_SECONDS = 600.0  # an endpoint that asks for more is left for another day
_PATIENCE_SECONDS = 300.0  # so long 429s may follow upon 429s without counting as failures
_STOP_AFTER = 8  # completions given up in a row, for the endpoint's own reasons


class DeadEndpointError(InputError):
    """The endpoint answered nothing at all: a wrong address, or a server that is not up (yet)."""

    transient = True


@dataclass(slots=True)
class Ask:
    """A request and what has become of it so far."""

    request: Request
    prompt: Mapping[str, Any]
    tries: int = 0
    failures: int = 0  # tries that count: an endpoint may say "later" more often than it may fail


class Drawing:
    """What has ended is handed out by ``next``, until nothing is left; ``close`` gives up the rest.

    ``path`` is the endpoint's, ``fields`` of the body are the same for all requests; ``proven``:
    the endpoint has answered such requests before, so that one it refuses is that one's fault.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        fresh: deque[Ask],
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
        self._later: list[tuple[float, int, Ask]] = []  # heap by the time at which each is due
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

    async def _attempt(self, ask: Ask) -> None:
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

    def _body(self, ask: Ask) -> bytes:
        fields = {**self._fields, **ask.prompt, "seed": ask.request.seed}
        if isinstance(messages := fields.get("messages"), str):
            fields["messages"] = json.loads(messages)
        if "max_tokens" in fields and self._limit_name != "max_tokens":
            fields[self._limit_name] = fields.pop("max_tokens")
        return json.dumps(fields).encode()

    def _refused(self, ask: Ask, refusal: RefusedError, *, sent_at: float, limit_name: str) -> None:
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
            tries = min(tries, FIRST_CONTACT_TRIES)
        if ask.failures >= tries:
            self._give_up(ask, refusal)
            return
        self._try_at(now + wait + backoff(ask.tries), ask)

    def _try_at(self, due: float, ask: Ask) -> None:
        heapq.heappush(self._later, (due, next(self._order), ask))

    def _permanent(self, ask: Ask, refusal: RefusedError) -> InputError:
        remedy = {
            401: "check the key's environment variable",
            403: "check the key's environment variable",
            404: "check model and base_url",
        }.get(refusal.status or 0, f"it was asked for problem {ask.request.problem_id}")
        return InputError(f"endpoint {self._endpoint.url}: {refusal}; {remedy}.")

    def _give_up(self, ask: Ask, refusal: RefusedError) -> None:
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


def backoff(tries: int) -> float:
    """Seconds before the next try: exponential, with full jitter over its upper half."""
    first, longest = _BACKOFF_SECONDS
    return random.uniform(0.5, 1.0) * min(longest, first * 2.0 ** min(tries - 1, 16))

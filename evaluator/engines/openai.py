"""Engine ``openai``: any endpoint that speaks OpenAI's HTTP interface. Torch-free.

An event loop runs while the caller waits for the next completion, in the caller's own thread, so
that an interrupt ends the requests under way and nothing else (``drawing.py``: what comes of each).
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from evaluator.engines.base import Request
from evaluator.engines.drawing import (
    FIRST_CONTACT_TRIES,
    Ask,
    DeadEndpointError,
    Drawing,
    backoff,
)
from evaluator.engines.endpoint import NEUTRAL, Endpoint, Greeting, RefusedError, check_key
from evaluator.engines.pacing import Pace
from evaluator.engines.prompting import Prompter
from evaluator.errors import InputError
from evaluator.protocol import Protocol, Sampling
from evaluator.records import Completion

KEY_VARIABLE = "OPENAI_API_KEY"
CONCURRENCY = 64
TIMEOUT_SECONDS = 3600.0  # 32,768 tokens at 10 tokens/s
RETRIES = 5


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
                if attempt == FIRST_CONTACT_TRIES:
                    raise DeadEndpointError(
                        f"endpoint {self._endpoint.url}: {refusal}; check base_url and that the "
                        "server is up."
                    ) from None
            await asyncio.sleep(backoff(attempt))
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
        asks = [Ask(request, self._prompt(request, sampling)) for request in requests]
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

    def _run(self, asks: list[Ask], sampling: Sampling) -> Iterator[Completion]:
        drawing = Drawing(
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

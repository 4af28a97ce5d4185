"""An OpenAI-compatible endpoint on the loopback, in a thread, as well or ill behaved as asked."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

from aiohttp import web

Body = dict[str, Any]
Behaviour = Callable[["Stub", web.Request, Body], Awaitable[web.StreamResponse]]


def reply(body: Body, text: str = "\\boxed{1}", **more: Any) -> web.Response:
    """A proper answer; ``more`` replaces fields of the whole."""
    message: dict[str, Any] = {"role": "assistant", "content": text}
    choice = (
        {"message": message, "finish_reason": "stop"}
        if "messages" in body
        else {"text": text, "finish_reason": "stop"}
    )
    answer = {
        "choices": [choice],
        "usage": {"prompt_tokens": 7, "completion_tokens": 11},
        **more,
    }
    return web.json_response(answer)


def refuse(status: int, message: str, **headers: str) -> web.Response:
    """An error as OpenAI words it."""
    return web.json_response({"error": {"message": message}}, status=status, headers=headers)


async def polite(stub: Stub, request: web.Request, body: Body) -> web.StreamResponse:
    """Answers everything, after a moment."""
    await asyncio.sleep(0.002)
    return reply(body)


class Stub:
    """A context manager; ``url`` is its base URL, ``bodies`` what it was asked."""

    def __init__(
        self,
        behaviour: Behaviour = polite,
        models: list[Body] | None = None,
        listing: Behaviour | None = None,
    ) -> None:
        self.behaviour = behaviour
        self.listing = listing
        self.requests = 0
        self.models = models
        self.bodies: list[Body] = []
        self.keys: list[str | None] = []
        self.at_once = self.most_at_once = 0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def stop(self) -> None:
        """Die; harmless when dead."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join()

    def _serve(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        app = web.Application()
        app.router.add_get("/v1/models", self._list)
        app.router.add_post("/v1/{path:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.05)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        self._ready.set()
        await self._end.wait()
        await runner.cleanup()

    async def _list(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        if self.listing is not None:
            return await self.listing(self, request, {})
        if self.models is None:
            return web.Response(status=404)
        return web.json_response({"data": self.models})

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        body: Body = json.loads(await request.read())
        self.bodies.append(body)
        self.keys.append(request.headers.get("Authorization"))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await self.behaviour(self, request, body)
        finally:
            self.at_once -= 1

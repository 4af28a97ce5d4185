"""The endpoint that harnesses are measured against: each answer comes 20 ms after its request.

``python -m bench._endpoint ANSWERS.json`` prints its port. ``ANSWERS.json`` holds the answers by
problem number; a prompt names its problem as ``[#17]``. An answer is 8,000 characters of reasoning
with a boxed result: three times in four the right one, else another problem's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from collections import Counter
from pathlib import Path

from aiohttp import web

DELAY_SECONDS = 0.020
CHARACTERS = 8000
_NUMBER = re.compile(r"\[#(\d+)\]")
_REASONING = (
    "Let us set $x_{%d} = \\frac{a+b}{%d}$ and look at the equation again, because the term on the "
    "left grows with $n$ while the right side does not. Then $x^2 - %dx + 1 = 0$, so we check both "
    "roots, and wait, the second one is negative. "
)


def text(number: int, count: int, answers: list[str]) -> str:
    """The response to problem ``number`` when it is asked for the ``count``-th time."""
    right = (number * 7 + count * 5) % 4 != 0
    answer = answers[number if right else (number + 1 + count) % len(answers)]
    end = f"\n\nTherefore the answer is $\\boxed{{{answer}}}$."
    steps: list[str] = []
    length = len(end)
    while length < CHARACTERS:
        steps.append(_REASONING % (len(steps), number + 2, count + len(steps)))
        length += len(steps[-1])
    return "".join(steps)[: CHARACTERS - len(end)] + end


async def main(answers: list[str]) -> None:
    """Serve until told to stop."""
    asked: Counter[int] = Counter()

    async def complete(request: web.Request) -> web.Response:
        body = await request.read()
        found = _NUMBER.search(body.decode())
        assert found is not None
        number = int(found[1])
        asked[number] += 1
        message = {"role": "assistant", "content": text(number, asked[number], answers)}
        answer = {
            "id": f"c{number}-{asked[number]}",
            "object": "chat.completion",
            "created": 0,
            "model": "stub",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 2000, "total_tokens": 2100},
        }
        await asyncio.sleep(DELAY_SECONDS)
        return web.json_response(answer)

    app = web.Application()
    app.router.add_post("/v1/chat/completions", complete)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("answers", type=Path, help="JSON list: the right answer of each problem")
    asyncio.run(main(json.loads(parser.parse_args().answers.read_text())))

"""The least that drawing and grading can cost: aiohttp, 64 requests at a time, and our graders.

``python -m bench._bare URL SET… [--grade]``; a set is ``BENCHMARK=PROBLEMS.jsonl*SAMPLES``.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import aiohttp

from evaluator import benchmarks
from evaluator.graders.pool import GraderPool
from evaluator.protocol import Protocol
from evaluator.records import Completion, FinishReason, Problem
from evaluator.runner import grade_request, load_problems

CONCURRENCY = 64


async def draw(url: str, work: Iterator[tuple[Problem, int]]) -> list[tuple[Problem, Completion]]:
    """Ask for all of it."""
    drawn: list[tuple[Problem, Completion]] = []

    async def ask(session: aiohttp.ClientSession) -> None:
        for problem, sample in work:
            body = {"model": "stub", "messages": [{"role": "user", "content": problem.problem}]}
            async with session.post(f"{url}/chat/completions", json=body) as response:
                [choice] = json.loads(await response.read())["choices"]
            text = choice["message"]["content"]
            drawn.append((problem, Completion(problem.id, sample, text, FinishReason.STOP)))

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(ask(session) for _ in range(CONCURRENCY)))
    return drawn


def main() -> None:
    """Draw every set, and grade it where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="of the endpoint, with /v1")
    parser.add_argument("sets", nargs="+", metavar="SET", help="BENCHMARK=PROBLEMS.jsonl*SAMPLES")
    parser.add_argument("--grade", action="store_true", help="grade what is drawn, too")
    options = parser.parse_args()
    url = options.url
    for each in options.sets:
        name, _, rest = each.partition("=")
        path, _, samples = rest.rpartition("*")
        problems = load_problems(Path(path))
        work = itertools.product(problems, range(int(samples)))
        drawn = asyncio.run(draw(url, iter(work)))
        right = 0
        if options.grade:
            spec, protocol = benchmarks.get(name), Protocol()
            with GraderPool(2) as pool:
                asked = (
                    grade_request(completion, problem, benchmark=spec, protocol=protocol)
                    for problem, completion in drawn
                )
                right = sum(verdict.outcome == "correct" for verdict in pool.grade(asked))
        print(name, len(drawn), right)


if __name__ == "__main__":
    main()

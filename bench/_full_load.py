"""People who look at pages of a full installation. Needs django.setup()."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from statistics import median, quantiles
from urllib.parse import quote

import aiohttp
from django.db import connection
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.test import Client
from django.test.utils import CaptureQueriesContext

from bench._full_fill import PASSWORD, WITH_TEXTS
from bench._full_shapes import SETS
from webapp.benchmarks.models import Problem
from webapp.checkpoints.models import Checkpoint
from webapp.core.models import User
from webapp.projects.access import projects_of, seen_by
from webapp.runs.models import Evaluation, Run

WARM_SECONDS = 10.0
# How often people look at what, of a hundred pages.
WEIGHTS = {
    "leaderboard": 22, "comparison": 15, "evaluation": 20, "drill-down": 18, "run": 10, "runs": 6,
    "checkpoints": 4, "checkpoint": 5,
}  # fmt: skip
_TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')


@dataclass(frozen=True, slots=True)
class Answer:
    """One page that came."""

    page: str
    seconds: float
    status: int
    size_bytes: int
    address: str


@dataclass(frozen=True, slots=True)
class Pace:
    """In seconds."""

    seconds: float  # of asking for pages
    think: float  # between two pages of a person
    ends_every: float  # between evaluations that end: what a process keeps of scores is stale then


class Journey:
    """One person, and addresses of what they may see; the same ones in every run."""

    def __init__(self, user: User) -> None:
        self.user = user
        self.rng = random.Random(user.pk)
        scored = seen_by(user, Evaluation.objects.all(), "run__project").order_by("pk")
        self.by_benchmark: dict[int, list[int]] = defaultdict(list)
        for pk, benchmark in scored.values_list("pk", "benchmark_id"):
            self.by_benchmark[benchmark].append(pk)
        self.benchmarks = sorted(self.by_benchmark)
        self.evaluations = [pk for pks in self.by_benchmark.values() for pk in pks]
        readable = set(range(1, max(self.evaluations) + 1, WITH_TEXTS))
        self.readable = {
            benchmark: chosen for benchmark, pks in self.by_benchmark.items()
            if (chosen := [pk for pk in pks if pk in readable])
        }  # fmt: skip
        self.problems: dict[int, list[int]] = defaultdict(list)
        for pk, benchmark in Problem.objects.values_list("pk", "benchmark_id"):
            self.problems[benchmark].append(pk)
        self.project = quote(str(projects_of(user).order_by("pk")[user.pk % 2].name))
        self.runs = _keys(seen_by(user, Run.objects.all()))
        self.checkpoints = _keys(seen_by(user, Checkpoint.objects.all()))

    def next(self) -> tuple[str, str]:
        """(kind of page, address)."""
        page = self.rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        return page, self.address(page)

    def address(self, page: str) -> str:
        """An address of such a page."""
        makers: dict[str, Callable[[], str]] = {
            "leaderboard": self._leaderboard,
            "comparison": self._comparison,
            "evaluation": self._evaluation,
            "drill-down": self._problem,
            "run": lambda: f"/runs/{self.rng.choice(self.runs)}/",
            "runs": lambda: f"/runs/?page={self.rng.randint(1, 20)}",
            "checkpoints": lambda: f"/checkpoints/?page={self.rng.randint(1, 10)}",
            "checkpoint": lambda: f"/checkpoints/{self.rng.choice(self.checkpoints)}/",
        }
        return makers[page]()

    def _leaderboard(self) -> str:
        name = self.rng.choice(SETS).name
        ways = [
            "/", "/", "/?page=2", f"/?benchmark={name}", f"/?benchmark={name}&page=3",
            f"/?benchmark={name}&sort={name}:cons@n", "/?sort=name", "/?same=1&kind=student",
            f"/?benchmark={name}&project={self.project}",
        ]  # fmt: skip
        return self.rng.choice(ways)

    def _comparison(self) -> str:
        among = self.by_benchmark[self.rng.choice(self.benchmarks)]
        chosen = self.rng.sample(among, self.rng.choice((2, 2, 2, 3, 4, 8)))
        return f"/compare/?e={','.join(map(str, chosen))}"

    def _evaluation(self) -> str:
        order = self.rng.choice(("", "", "?sort=hardest", "?show=mixed"))
        return f"/evaluations/{self.rng.choice(self.evaluations)}/{order}"

    def _problem(self) -> str:
        benchmark = self.rng.choice(sorted(self.readable))
        evaluation = self.rng.choice(self.readable[benchmark])
        return f"/evaluations/{evaluation}/problems/{self.rng.choice(self.problems[benchmark])}/"


def _keys(rows: QuerySet[Run] | QuerySet[Checkpoint]) -> list[int]:
    return list(rows.order_by("pk").values_list("pk", flat=True))


def journeys(users: int) -> list[Journey]:
    """So many people; a sixth of them are staff."""
    return [Journey(user) for user in User.objects.order_by("pk")[:users]]


def queries(among: Sequence[Journey]) -> dict[str, int]:
    """The most database queries that a page of each kind took, of three."""
    found: dict[str, int] = {}
    journey = next(each for each in among if not each.user.is_staff)
    client = Client(headers={"host": "localhost"})
    client.force_login(journey.user)
    for page in WEIGHTS:
        for _ in range(3):
            address = journey.address(page)
            with CaptureQueriesContext(connection) as captured:
                response = client.get(address)
            if response.status_code != 200:
                raise RuntimeError(f"{address}: {response.status_code}")
            found[page] = max(found.get(page, 0), len(captured))
    return found


def ask(
    address: str,
    among: Sequence[Journey],
    pace: Pace,
    on_warm: Callable[[], None],
) -> list[Answer]:
    """Have all of them look at pages for so long, after the first ones have warmed the server up.

    Raises RuntimeError where a page does not come.
    """
    answers = asyncio.run(_ask(address, among, pace, on_warm))
    wrong = [each for each in answers if each.status != 200]
    if wrong:
        raise RuntimeError(f"{len(wrong)} pages did not come; {wrong[0]}")
    return answers


async def _ask(
    address: str,
    among: Sequence[Journey],
    pace: Pace,
    on_warm: Callable[[], None],
) -> list[Answer]:
    async with AsyncExitStack() as stack:
        people = []
        for journey in among:
            jar = aiohttp.CookieJar(unsafe=True)  # an address of numbers is no name
            session = aiohttp.ClientSession(address, cookie_jar=jar)
            people.append((await stack.enter_async_context(session), journey))
            await _sign_in(session, journey.user.username)
        await _walk_all(people, WARM_SECONDS, pace.think)
        on_warm()
        ending = asyncio.create_task(_end(among[0].evaluations, pace.ends_every))
        try:
            return await _walk_all(people, pace.seconds, pace.think)
        finally:
            ending.cancel()


async def _end(evaluations: Sequence[int], every: float) -> None:
    """Let one evaluation after the other end anew, now: the newest of its checkpoint."""
    for pk in evaluations:
        await asyncio.sleep(every)
        await Evaluation.objects.filter(pk=pk).aupdate(created_at=Now())


async def _walk_all(
    people: Sequence[tuple[aiohttp.ClientSession, Journey]], seconds: float, think: float
) -> list[Answer]:
    until = time.monotonic() + seconds
    walks = []
    for session, journey in people:
        walks.append(asyncio.create_task(_walk(session, journey, until, think)))
        await asyncio.sleep(think / len(people))  # they do not come all at once
    return [answer for walk in walks for answer in await walk]


async def _walk(
    session: aiohttp.ClientSession, journey: Journey, until: float, think: float
) -> list[Answer]:
    answers: list[Answer] = []
    while time.monotonic() < until:
        page, path = journey.next()
        began = time.monotonic()
        async with session.get(path, allow_redirects=False) as response:
            body = await response.read()
        took = time.monotonic() - began
        answers.append(Answer(page, took, response.status, len(body), path))
        await asyncio.sleep(think)
    return answers


async def _sign_in(session: aiohttp.ClientSession, name: str) -> None:
    async with session.get("/accounts/login/") as response:
        token = _TOKEN.search(await response.text())
    if token is None:
        raise RuntimeError("the page to sign in has no form")
    values = {"username": name, "password": PASSWORD, "csrfmiddlewaretoken": token[1]}
    async with session.post("/accounts/login/", data=values, allow_redirects=False) as response:
        if response.status != 302:
            raise RuntimeError(f"{name} cannot sign in: {response.status}")


def figures(answers: Sequence[Answer]) -> dict[str, dict[str, float]]:
    """Milliseconds and bytes for each kind of page, and for all."""
    by_page: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        by_page[answer.page].append(answer)
        by_page["all"].append(answer)
    return {page: _figures(by_page[page]) for page in [*WEIGHTS, "all"] if len(by_page[page]) > 1}


def _figures(answers: Sequence[Answer]) -> dict[str, float]:
    times = [1000 * each.seconds for each in answers]
    return {
        "requests": len(times),
        "p50_ms": round(median(times), 1),
        "p95_ms": round(quantiles(times, n=20, method="inclusive")[-1], 1),
        "max_ms": round(max(times), 1),
        "median_bytes": round(median(each.size_bytes for each in answers)),
    }

"""Trace generation: samples in rounds, verdicts as they come, tokens and money counted.

Torch-free by itself: the engine is somebody else's.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Self

from distiller import traces
from distiller.recipe import Price, Recipe
from evaluator import runner
from evaluator.engines import Engine
from evaluator.graders.pool import GradeRequest, GraderPool
from evaluator.protocol import GradingPolicy
from evaluator.records import Completion, FinishReason, Outcome, Problem
from evaluator.store import SegmentWriter

# Characters that wait for the grader; the teacher waits when there are more.
_BACKLOG_CHARACTERS = 16 << 20
_ANSWER_FILTER = "answer"


@dataclass(slots=True)
class Tally:
    """What has been drawn so far, what of it is right, and what it took.

    A trace is *verified* when the recipe's grader calls its answer right and it was not cut off.
    ``uncounted`` traces came without token counts: the token sums, and the cost, leave them out.
    """

    prompts: int = 0  # of which a sample was asked for and came, or failed
    prompts_verified: int = 0  # prompts with at least one verified trace
    traces: int = 0
    traces_verified: int = 0
    errors: int = 0  # samples of which no completion came
    not_needed: int = 0  # samples that are not drawn, because their prompt has enough
    prompt_tokens: int = 0
    completion_tokens: int = 0
    uncounted: int = 0

    @property
    def running_yield(self) -> float | None:
        """Share of prompts with a verified trace (Open R1 reports 55 %); None without prompts."""
        return self.prompts_verified / self.prompts if self.prompts else None

    def cost(self, price: Price | None) -> float | None:
        """Money spent on the counted tokens, in the price's currency; None without a price."""
        if price is None:
            return None
        spent = self.prompt_tokens * price.input_per_million
        return (spent + self.completion_tokens * price.output_per_million) / 1e6

    def to_json(self) -> dict[str, int]:
        """The counts."""
        return asdict(self)

    @classmethod
    def total(cls, parts: Iterable[dict[str, Any]]) -> Tally:
        """The sum of several tallies' :meth:`to_json` over different prompts."""
        whole = cls()
        for part in parts:
            for name in asdict(whole):
                setattr(whole, name, getattr(whole, name) + int(part.get(name, 0)))
        return whole


OnTally = Callable[[Tally], None]


class Verifier:
    """Grades traces in a thread of its own while others are drawn; a context manager."""

    def __init__(self, recipe: Recipe) -> None:
        chosen = (each for each in recipe.filters if each.name == _ANSWER_FILTER)
        parameters = next((each.parameters for each in chosen), {})
        self._grader = str(parameters.get("grader", "math"))
        self._policy = GradingPolicy.model_validate(parameters.get("policy", {}))
        self._thinking = recipe.thinking
        self._pool = GraderPool(1)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="verifier")
        self._room = threading.Condition()
        self._waiting_characters = 0

    def __enter__(self) -> Self:
        self._pool.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.shutdown(cancel_futures=True)
        self._pool.__exit__(kind, error, trace)

    def verify(self, completion: Completion, problem: Problem) -> Future[bool]:
        """Whether the trace is right, in a while; waits while too much text is to be graded."""
        size = len(completion.text)
        with self._room:
            self._room.wait_for(
                lambda: (
                    not self._waiting_characters
                    or self._waiting_characters + size <= _BACKLOG_CHARACTERS
                )
            )
            self._waiting_characters += size
        return self._thread.submit(self._verify, completion, problem)

    def _verify(self, completion: Completion, problem: Problem) -> bool:
        request = GradeRequest(
            kind=self._grader,
            gold=problem.answer,
            thinking=self._thinking,
            policy=self._policy,
            completion=completion,
        )
        try:
            [verdict] = self._pool.grade([request])
        finally:
            with self._room:
                self._waiting_characters -= len(completion.text)
                self._room.notify_all()
        return verdict.outcome is Outcome.CORRECT


class _Rounds:
    """Which samples to draw next.

    Without ``stop_after`` there is one round of all samples. With it, a round draws of each prompt
    as many as it still lacks verified ones, the lowest sample numbers first. So never more than
    needed is drawn, and the samples of a prompt end up being 0 … m - 1 with the smallest m that
    holds enough: whoever draws them, in how many sittings, and in whatever order they come.
    """

    def __init__(self, problems: Sequence[Problem], recipe: Recipe, verifier: Verifier) -> None:
        self._problems = runner.by_id(problems)
        self._samples = recipe.generation.samples
        self._enough = recipe.generation.stop_after
        self._verifier = verifier
        self._taken: defaultdict[str, set[int]] = defaultdict(set)
        self._verified: defaultdict[str, int] = defaultdict(int)
        self._open: list[tuple[str, Future[bool]]] = []
        self.tally = Tally()

    def take(self, completion: Completion) -> None:
        """Count one completion; its verdict is asked for."""
        tally, problem = self.tally, self._problems[completion.problem_id]
        if completion.sample in self._taken[problem.id]:
            return
        tally.prompts += not self._taken[problem.id]
        self._taken[problem.id].add(completion.sample)
        if completion.error is not None or completion.finish_reason is FinishReason.ERROR:
            tally.errors += 1
            return
        tally.traces += 1
        if completion.prompt_tokens is None or completion.completion_tokens is None:
            tally.uncounted += 1
        tally.prompt_tokens += completion.prompt_tokens or 0
        tally.completion_tokens += completion.completion_tokens or 0
        if completion.finish_reason is not FinishReason.LENGTH and problem.answer.strip():
            self._open.append((problem.id, self._verifier.verify(completion, problem)))
        self.settle(wait=False)

    def settle(self, *, wait: bool) -> None:
        """Count the verdicts that are there, or all of them."""
        still: list[tuple[str, Future[bool]]] = []
        for problem_id, verdict in self._open:
            if not wait and not verdict.done():
                still.append((problem_id, verdict))
            elif verdict.result():
                self._verified[problem_id] += 1
                self.tally.traces_verified += 1
                self.tally.prompts_verified += self._verified[problem_id] == 1
        self._open = still

    def next(self) -> dict[str, list[int]]:
        """Samples of the next round by problem; empty when nothing is left to draw."""
        self.settle(wait=True)
        wanted: dict[str, list[int]] = {}
        self.tally.not_needed = 0
        for problem_id in self._problems:
            missing = [s for s in range(self._samples) if s not in self._taken[problem_id]]
            if self._enough is not None:
                lacking = max(0, self._enough - self._verified[problem_id])
                if not lacking:
                    self.tally.not_needed += len(missing)
                missing = missing[:lacking]
            if missing:
                wanted[problem_id] = missing
        return wanted


def draw(
    problems: Sequence[Problem],
    *,
    recipe: Recipe,
    engine: Engine,
    writer: SegmentWriter,
    verifier: Verifier,
    earlier: Iterable[Completion] = (),
    on_progress: runner.Progress = lambda done, total, tokens: None,
    on_tally: OnTally = lambda tally: None,
) -> Tally:
    """Draw the recipe's samples of every problem into ``writer`` and count them.

    ``earlier`` are completions that are there already; keys and seeds depend on nothing else.
    ``on_progress`` gets samples done (drawn or not needed), samples in all, and tokens of all
    sittings; ``on_tally`` the counts so far, after every trace. Rows drawn are sealed even when the
    engine fails.
    """
    rounds = _Rounds(problems, recipe, verifier)
    tally = rounds.tally
    samples = recipe.generation.samples
    total = len(problems) * samples
    for completion in earlier:
        rounds.take(completion)

    def keep(completion: Completion) -> None:
        rounds.take(completion)
        report()

    def report() -> None:
        done = tally.traces + tally.errors + tally.not_needed
        on_progress(done, total, tally.completion_tokens)
        on_tally(tally)

    protocol = traces.protocol(recipe)
    assert protocol.prompt is not None, "traces.protocol names the prompt"
    while wanted := rounds.next():
        report()
        runner.draw(
            [problem for problem in problems if problem.id in wanted],
            prompt=protocol.prompt,
            protocol=protocol,
            samples=samples,
            engine=engine,
            writer=writer,
            done={
                (problem_id, sample)
                for problem_id, drawn in wanted.items()
                for sample in set(range(samples)) - set(drawn)
            },
            on_progress=lambda done, total, tokens: None,
            on_completion=keep,
        )
    report()
    return tally

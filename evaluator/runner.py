"""Draw, grade, aggregate: what a run does, whoever asks for it. Torch-free by itself."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from evaluator import graders, metrics
from evaluator.benchmarks import BenchmarkSpec
from evaluator.benchmarks.choice_order import option_order, question
from evaluator.engines.base import Engine, Request, forced_start
from evaluator.errors import InputError
from evaluator.graders.extraction import opened_by_server
from evaluator.graders.pool import GradeRequest, GraderPool
from evaluator.passport import Passport
from evaluator.protocol import Protocol
from evaluator.records import Completion, FinishReason, Outcome, Problem, Verdict, completion_seed
from evaluator.store import Row, SegmentWriter

# What PostgreSQL's text cannot hold.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")

Key = tuple[str, int]
Progress = Callable[[int, int, int], None]


def load_problems(path: Path) -> list[Problem]:
    """Read the rows of ``Problem.to_json``; raises InputError for none or a repeated id."""
    try:
        lines = path.read_text("utf-8").split("\n")
        problems = [Problem.from_json(json.loads(line)) for line in lines if line]
    except OSError as error:
        raise InputError(f"problems: {path} cannot be read ({error.strerror}).") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"problems: {path.name} holds a malformed row ({error!r}).") from error
    by_id(problems)
    return problems


def by_id(problems: Sequence[Problem]) -> dict[str, Problem]:
    """Problems by id; raises InputError for none or a repeated id."""
    if not problems:
        raise InputError("problems: there are none.")
    known: dict[str, Problem] = {}
    for problem in problems:
        if problem.id in known:
            raise InputError(f"problems: the id {problem.id!r} occurs twice.")
        known[problem.id] = problem
    return known


def draw(
    problems: Sequence[Problem],
    *,
    prompt: str,
    protocol: Protocol,
    samples: int,
    engine: Engine,
    writer: SegmentWriter,
    done: set[Key],
    on_progress: Progress,
    on_completion: Callable[[Completion], None] | None = None,
) -> str:
    """Draw ``samples`` completions of every problem into ``writer``; skip the keys in ``done``.

    ``prompt`` holds ``{problem}``. ``on_progress`` gets completions done (those in ``done``
    included), completions in all, and tokens generated now. Seeds depend on the protocol's seed and
    the key alone. ``on_completion`` gets each completion once it is in the writer's hands. Returns
    the first problem's rendered prompt. Rows already drawn are sealed even when the engine fails.
    """
    by_id(problems)
    requests: list[Request] = []
    rendered = ""
    for problem in problems:
        texts: dict[tuple[int, ...], str] = {}  # one, unless options are shown in several orders
        for sample in range(samples):
            order = option_order(protocol.seed, problem.id, sample, len(problem.options))
            if order not in texts:
                texts[order] = engine.render(
                    question(problem, order), prompt=prompt, protocol=protocol
                )
            requests.append(
                Request(
                    problem_id=problem.id,
                    sample=sample,
                    prompt=texts[order],
                    seed=completion_seed(protocol.seed, problem.id, sample),
                    start=forced_start(texts[order], protocol.thinking),
                    options=order,
                    again=bool(done),
                )
            )
        rendered = rendered or requests[0].prompt
    waiting = [request for request in requests if request.key not in done]
    shown = {request.key: request.options for request in waiting}
    ready, tokens = len(requests) - len(waiting), 0
    on_progress(ready, len(requests), tokens)
    try:
        for drawn in engine.generate(waiting, protocol.sampling) if waiting else ():
            completion = replace(drawn, options=drawn.options or shown[drawn.key])
            writer.append(completion.to_json())
            if on_completion is not None:
                on_completion(completion)
            ready += 1
            tokens += completion.completion_tokens or 0
            on_progress(ready, len(requests), tokens)
    finally:
        writer.seal()
    return rendered


def as_served(
    protocol: Protocol, *, engine: Mapping[str, Any], completions: Iterable[Row]
) -> Protocol:
    """``protocol`` as completions (``Completion.to_json`` rows) of a run are to be read.

    A chat endpoint renders the prompt itself. Where its template opens the thoughts, responses hold
    the closing tag alone, and one that was cut off before it no tag at all: still thinking, and no
    answer. So it is with completions made elsewhere. ``engine`` is what drew them, as it describes
    itself. The protocol's own fields stand in the passport: the rule is the same.
    """
    thinking, name = protocol.thinking, engine.get("name")
    elsewhere = name == "replay" or (name == "openai" and engine.get("api") == "chat")
    if not elsewhere or thinking.kind != "tags" or thinking.forced:
        return protocol
    if not opened_by_server(map(Completion.from_json, completions), thinking):
        return protocol
    forced = thinking.model_copy(update={"forced": True})
    return protocol.model_copy(update={"thinking": forced})


def grade_request(
    completion: Completion, problem: Problem, *, benchmark: BenchmarkSpec, protocol: Protocol
) -> GradeRequest:
    """What a grader is asked about one completion.

    Raises InputError for one that was made elsewhere without word of how its options were shown.
    """
    came = completion.error is None and completion.finish_reason is not FinishReason.ERROR
    if problem.options and came and len(completion.options) != len(problem.options):
        raise InputError(
            f"completions: sample {completion.sample} of problem {problem.id!r} must carry "
            f"options, the order in which its {len(problem.options)} options were shown."
        )
    return GradeRequest(
        kind=benchmark.grader,
        gold=problem.answer,
        completion=completion,
        thinking=protocol.thinking,
        policy=protocol.policy,
        problem=problem,
    )


def graded_row(key: Key, verdict: Verdict) -> Row:
    """A verdict as ``{problem_id, sample, outcome, answer, reason}``, fit for a database.

    A program's has ``judged`` too (``evaluator.graders.code``).
    """
    answer = verdict.answer
    row: Row = {
        "problem_id": key[0],
        "sample": key[1],
        "outcome": str(verdict.outcome),
        "answer": None if answer is None else _UNSTORABLE.sub("\ufffd", answer),
        "reason": verdict.reason,
    }
    if verdict.judged is not None:
        row["judged"] = dict(verdict.judged)
    return row


def _first_of_each_key(rows: Iterable[Row]) -> Iterator[Completion]:
    """Each key's first completion without an error; at the end, those that have nothing better."""
    seen: set[Key] = set()
    failed: dict[Key, Completion] = {}
    for row in rows:
        completion = Completion.from_json(row)
        if completion.error is not None:
            failed.setdefault(completion.key, completion)
        elif completion.key not in seen:
            seen.add(completion.key)
            yield completion
    yield from (completion for key, completion in failed.items() if key not in seen)


def grade(
    problems: Sequence[Problem],
    completions: Iterable[Row],
    *,
    benchmark: BenchmarkSpec,
    protocol: Protocol,
    samples: int,
    pool: GraderPool,
    passport: Passport,
    on_row: Callable[[Row], None],
    graded: Iterable[Row] = (),
) -> dict[str, Any]:
    """Grade completions (``Completion.to_json`` rows) and return PROTOCOLS §2's metrics.json.

    The hashes and fields of the measurement's ``passport`` stand beside the score.
    ``on_row`` gets ``{problem_id, sample, outcome, answer, reason}`` as soon as a verdict stands;
    ``graded`` holds such rows of an interrupted run: verdicts stand, errors are graded again. Of
    several rows with one key the first counts, and one with an error only if all have.
    """
    rows = give_verdicts(
        problems, completions, benchmark=benchmark, protocol=protocol, pool=pool,
        on_row=on_row, graded=graded,
    )  # fmt: skip
    grader = graders.get(benchmark.grader)
    figures = metrics.aggregate(
        problems,
        rows,
        benchmark=benchmark.name,
        grader=grader.identity,
        samples=samples,
        measurement_hash=passport.measurement_hash,
        run_fingerprint=passport.run_fingerprint,
        equal=(lambda pairs: pool.equal(grader.name, pairs, protocol.policy))
        if grader.compares
        else None,
    )
    return figures | passport.to_json()


def give_verdicts(
    problems: Sequence[Problem],
    completions: Iterable[Row],
    *,
    benchmark: BenchmarkSpec,
    protocol: Protocol,
    pool: GraderPool,
    on_row: Callable[[Row], None],
    graded: Iterable[Row] = (),
) -> list[Row]:
    """Grade completions as ``grade`` does; returns its rows, each with its completion's tokens."""
    known = by_id(problems)
    rows: dict[Key, Row] = {
        (row["problem_id"], row["sample"]): dict(row)
        for row in graded
        if not Outcome(row["outcome"]).is_error
    }
    finished = set(rows)
    tokens: dict[Key, int | None] = {}

    asked: deque[Key] = deque()  # the pool answers in order; texts are not kept for it

    def requests() -> Iterator[GradeRequest]:
        for completion in _first_of_each_key(completions):
            if completion.problem_id not in known:
                raise InputError(
                    f"completions: problem {completion.problem_id!r} is not in this benchmark."
                )
            tokens[completion.key] = completion.completion_tokens
            if completion.key not in finished:
                asked.append(completion.key)
                problem = known[completion.problem_id]
                yield grade_request(completion, problem, benchmark=benchmark, protocol=protocol)

    for verdict in pool.grade(requests()):
        key = asked.popleft()
        rows[key] = graded_row(key, verdict)
        on_row(rows[key])
    return [{**row, "completion_tokens": tokens.get(key)} for key, row in rows.items()]

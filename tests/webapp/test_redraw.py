"""Engine errors are drawn again: whatever fails when, one completion a key remains, the best one.

The stages' own code draws and grades, the leases take in what it delivers; only the engine and the
process around them are stand-ins, and fail by lot.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from evaluator import engines
from evaluator.benchmarks import arithmetic
from evaluator.child import ShardRequest
from evaluator.engines.base import Request
from evaluator.errors import TransientEngineError
from evaluator.protocol import Protocol, Sampling
from evaluator.records import Completion as Record
from evaluator.records import FinishReason, completion_seed
from evaluator.stages import FACTORIES
from evaluator.store import SealedSegment, read_segment
from webapp.benchmarks.services import install_benchmark
from webapp.checkpoints.models import Checkpoint
from webapp.core.errors import UserError
from webapp.projects.access import first_project
from webapp.runs import files, leases, plans, services, stages
from webapp.runs.leases import Claim
from webapp.runs.models import Completion, Evaluation, Run, Stage, State

PROBLEMS = arithmetic.generate(9, seed=4)
SAMPLES = 3
KEYS = {(problem.id, sample) for problem in PROBLEMS for sample in range(SAMPLES)}


class _DiedError(Exception):
    """The worker is gone, with whatever it had not delivered."""


@dataclass
class World:
    """What fails, and how often which key was asked for after it had been answered."""

    rng: random.Random
    error_rate: float = 0.0
    break_rate: float = 0.0
    death_rate: float = 0.0
    accepted: set[tuple[str, int]] = field(default_factory=set)
    repeated: int = 0


class Engine:
    """Right two times of three, by its seed alone; fails as the world wants."""

    def __init__(self, world: World) -> None:
        self.world = world

    def describe(self) -> dict[str, Any]:
        return {"name": "scripted"}

    def render(self, problem: str, *, prompt: str, protocol: Protocol) -> str:
        return prompt.replace("{problem}", problem)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Record]:
        gold = {problem.id: problem.answer for problem in PROBLEMS}
        for request in sorted(requests, key=lambda _: self.world.rng.random()):
            if self.world.rng.random() < self.world.break_rate:
                raise TransientEngineError("engine: the connection broke.")
            self.world.repeated += request.key in self.world.accepted
            if self.world.rng.random() < self.world.error_rate:
                yield Record(
                    *request.key, "", FinishReason.ERROR, seed=request.seed, error="HTTP 500"
                )
                continue
            answer = gold[request.problem_id] if request.seed % 3 else "-1"
            yield Record(
                *request.key, f"<think></think>\\boxed{{{answer}}}", FinishReason.STOP,
                completion_tokens=5, seed=request.seed,
            )  # fmt: skip

    def close(self) -> None:
        pass


class Reporter:
    """Delivers segments at once, as the worker does; may die of it."""

    def __init__(self, world: World, claim: Claim) -> None:
        self.world, self.claim = world, claim

    def ready(self, **engine: Any) -> None:
        leases.engine_ready(self.claim, engine)

    def progress(self, *_: Any, **__: Any) -> None:
        pass

    def usage(self, **_: Any) -> None:
        pass

    def segment(self, sealed: SealedSegment) -> None:
        if self.world.rng.random() < self.world.death_rate:
            raise _DiedError
        leases.accept_segment(
            self.claim, name=sealed.name, size_bytes=sealed.bytes, sha256=sealed.sha256
        )
        folder = files.segments_folder(Stage.objects.get(pk=self.claim.stage_id))
        for _, row in read_segment(folder / sealed.name):
            if row.get("error", "a verdict") is None:
                self.world.accepted.add((row["problem_id"], row["sample"]))


def do_one(run: Run, world: World) -> bool:
    """Claim and do a shard of the stage that is open; False where nothing is."""
    stage = run.stages.filter(state__in=(State.QUEUED, State.RUNNING)).first()
    claim = None if stage is None else leases.claim_shard(stage.pk, "me")
    if stage is None or claim is None:
        return False
    files.segments_folder(stage).mkdir(parents=True, exist_ok=True)
    report: Any = Reporter(world, claim)
    request = ShardRequest(claim.shard_id, claim.token.hex, claim.work, claim.accepted)
    try:
        spec: dict[str, Any] = stages.build_spec(Stage.objects.get(pk=stage.pk), "cpu")
        result: Mapping[str, Any] = FACTORIES[stage.kind](spec, report).run(request, report)
        leases.finish_shard(claim, result)
    except _DiedError:
        leases.release_shard(claim)
    except (TransientEngineError, stages.IncompleteError) as error:
        leases.fail_shard(claim, str(error), transient=True)
    return True


def carry_on(run: Run, world: World) -> None:
    """Until the run is finished, retrying it whenever it failed."""
    for _ in range(300):
        run.refresh_from_db()
        if run.state == State.FINISHED:
            return
        if run.state == State.FAILED:
            services.retry_run(run)
        assert do_one(run, world), "a run that is not final has a shard to do"
    pytest.fail("it never ended")


def check(evaluation: Evaluation) -> set[tuple[str, int]]:
    """Every key has one row, which points at its own completion; return the failed ones."""
    evaluation.refresh_from_db()
    rows = Completion.objects.filter(evaluation=evaluation).select_related(
        "problem", "segment__shard__stage"
    )
    assert {(row.problem.problem_id, row.sample) for row in rows} == KEYS
    assert len(rows) == len(KEYS)
    failed = set()
    for row in rows:
        text = files.completion_text(row)
        assert (text["problem_id"], text["sample"]) == (row.problem.problem_id, row.sample)
        assert (text["error"] is not None) == (row.finish_reason == "error")
        assert (row.outcome == "engine_error") == (row.finish_reason == "error")
        if row.finish_reason == "error":
            failed.add((row.problem.problem_id, row.sample))
    assert evaluation.metrics["outcomes"]["engine_error"] == len(failed)
    assert evaluation.metrics["complete"] == (not failed)
    return failed


@pytest.fixture
def run(
    transactional_db: None, user: Any, settings: Any, tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Run:  # fmt: skip
    settings.MEDIA_ROOT = tmp_path
    settings.RETORT_RETRY_SECONDS = 0
    settings.RETORT_STAGE_JOBS = 1
    monkeypatch.setattr(stages, "ring", lambda stage, times: None)
    monkeypatch.setattr(plans, "SHARD_PROBLEMS", 4)
    benchmark = install_benchmark("arithmetic", PROBLEMS, "a test")
    checkpoint = Checkpoint.objects.create(
        project=first_project(), name="tiny", path="checkpoints/tiny", owner=user
    )
    return services.launch_evaluation(
        owner=user, checkpoint=checkpoint, benchmark=benchmark, protocol=Protocol(samples=SAMPLES)
    )


@pytest.mark.parametrize("seed", range(8))
def test_whatever_fails_a_retry_draws_the_failed_alone_and_one_of_each_key_remains(
    run: Run, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng = random.Random(seed)
    world = World(rng, error_rate=rng.choice([0.1, 0.5, 0.9]), break_rate=0.02, death_rate=0.1)
    monkeypatch.setattr(engines, "create", lambda _: Engine(world))
    evaluation = run.evaluations.get()
    carry_on(run, world)
    failed = check(evaluation)
    while failed:  # people retry while the endpoint gets better
        services.retry_run(run)
        world.error_rate /= 2 if world.error_rate > 0.05 else 100
        before = set(
            Completion.objects.filter(evaluation=evaluation)
            .exclude(finish_reason="error")
            .values_list("pk", flat=True)
        )
        carry_on(run, world)
        left = check(evaluation)
        assert left <= failed
        failed = left
        kept = Completion.objects.filter(pk__in=before).count()
        assert kept == len(before), "what had come was touched"
    assert world.repeated == 0
    with pytest.raises(UserError, match="nothing is left"):
        services.retry_run(run)
    # As if nothing had ever failed.
    expected = {key: "correct" if engine_is_right(key) else "wrong" for key in KEYS}
    rows = evaluation.completions.values_list("problem__problem_id", "sample", "outcome")
    assert {(problem, sample): outcome for problem, sample, outcome in rows} == expected
    right = sum(outcome == "correct" for outcome in expected.values())
    assert evaluation.pass_at_1 == pytest.approx(right / len(KEYS))


def engine_is_right(key: tuple[str, int]) -> bool:
    return bool(completion_seed(0, *key) % 3)


def test_a_worker_tries_errors_again_by_itself_before_it_lets_them_stand(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(random.Random(0), error_rate=1.0)
    monkeypatch.setattr(engines, "create", lambda _: Engine(world))
    carry_on(run, world)
    evaluation = run.evaluations.get()
    assert check(evaluation) == KEYS
    attempts = run.stages.get(kind="evaluate").shards.values_list("attempts", flat=True)
    assert set(attempts) == {2}
    bounds = evaluation.metrics["bounds"]
    assert (bounds["low"], bounds["high"]) == (0.0, 1.0)

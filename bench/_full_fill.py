"""Fills a database as years of use would: see ``fill``. Needs django.setup()."""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.contrib.auth.hashers import make_password
from django.db import connection

from bench._copying import Text, bulk, copy, copy_lines, without_indexes
from bench._full_shapes import ABILITIES, PERIOD, PLAN, SETS, SOME, Set, Shape, draw
from distiller.generation import Tally
from distiller.recipe import Recipe
from evaluator import passport
from evaluator.protocol import PRESETS
from evaluator.records import content_hash, problems_hash
from evaluator.store import SegmentWriter
from webapp.benchmarks.models import Benchmark, Problem, PromptSet
from webapp.checkpoints.models import Checkpoint
from webapp.core.models import User
from webapp.leaderboard.models import Dispute, DisputedScore
from webapp.projects.models import Membership, Project, Role
from webapp.runs import files
from webapp.runs.models import (
    Completion,
    Evaluation,
    LedgerEntry,
    Run,
    Segment,
    Shard,
    Stage,
    State,
    TrainingPoint,
)

CHECKPOINTS = 2000
BASES = 60  # of them: what the others were trained from
PEOPLE = 24
PROJECTS = 6
WITH_TEXTS = 40  # of so many evaluations one has its segment's file
PASSWORD = "a password for measuring"  # of a database that lives for the bench
SHARDS = {"preflight": 1, "generate": 16, "filter": 4, "train": 1, "evaluate": 2, "grade": 1}
NOW = datetime(2026, 11, 1, tzinfo=UTC)
LATER = datetime(2026, 11, 2, tzinfo=UTC)
KEYS = ["evaluation", "problem", "sample", "outcome", "answer", "reason", "finish_reason",
        "prompt_tokens", "completion_tokens", "segment", "offset"]  # fmt: skip
THOUGHT = "Wait, let me check that again: $x^2 - 5x + 6 = (x - 2)(x - 3)$, so both roots count. "


@dataclass
class Rows:
    """What is copied once all of it is known; primary keys are places."""

    runs: list[Run] = field(default_factory=list)
    stages: list[Stage] = field(default_factory=list)
    shards: list[Shard] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    entries: list[LedgerEntry] = field(default_factory=list)
    points: list[TrainingPoint] = field(default_factory=list)


@dataclass(frozen=True)
class Measured:
    """An evaluation with the samples that were drawn for it."""

    evaluation: Evaluation
    shape: Shape
    turn: int
    first_problem: int  # primary key of the benchmark's first problem
    segment: Segment


class Filler:
    """Makes the rows, in memory but for the completions."""

    def __init__(self, checkpoints: int) -> None:
        self.rng = random.Random(8)
        self.rows = Rows()
        self.measured: list[Measured] = []
        self.count = checkpoints
        self.shapes: dict[tuple[str, int], list[Shape]] = {}
        self.protocols = {n: PRESETS[n].model_dump(mode="json") for n in PRESETS}
        names = {"teacher": "teacher", "base": "base", "student": "student"}
        self.recipe = Recipe.model_validate(names | {"prompts": {"set": "prompts"}}).model_dump(
            mode="json"
        )
        self.sets: dict[str, tuple[Set, Benchmark, int]] = {}  # and its first problem's key
        self.hashes: dict[tuple[str, str, int], dict[str, Any]] = {}

    def people(self) -> None:
        """Everybody works in one to three of the projects; a sixth are staff."""
        hashed = make_password(PASSWORD)
        self.users = [
            User(pk=1 + i, username=f"person{i:02d}", password=hashed, is_staff=i % 6 == 0,
                 is_superuser=i % 6 == 0, email=f"person{i:02d}@example.org")
            for i in range(PEOPLE)
        ]  # fmt: skip
        self.projects = list(Project.objects.order_by("pk")) or [Project(pk=1, name="Main")]
        first = self.projects[0].pk
        self.projects = [
            Project(pk=first + i, name=f"Project {i}", open=i == 0, created_at=NOW)
            for i in range(PROJECTS)
        ]
        Project.objects.all().delete()
        copy(User, self.users)
        copy(Project, self.projects)
        pairs = sorted({(u, (u + k) % PROJECTS) for u in range(PEOPLE) for k in range(1 + u % 3)})
        copy(Membership, [
            Membership(pk=1 + i, user=self.users[u], project=self.projects[p], created_at=NOW,
                       role=Role.ADMIN if (u + p) % 5 == 0 else Role.OPERATOR)
            for i, (u, p) in enumerate(pairs)
        ])  # fmt: skip

    def benchmarks(self) -> None:
        """The sets with their problems, and prompts to draw traces for."""
        problems: list[Problem] = []
        for chosen in SETS:
            row = Benchmark(
                pk=1 + len(self.sets), name=chosen.name, title=chosen.title, grader=chosen.grader,
                content_hash=problems_hash(chosen.problems), problem_count=chosen.count,
                source="made by bench.full", created_at=NOW,
            )  # fmt: skip
            self.sets[chosen.name] = (chosen, row, 1 + len(problems))
            problems += [
                Problem(
                    pk=1 + len(problems) + i, benchmark=row, problem_id=p.id, position=i,
                    problem=p.problem, answer=p.answer, subject=p.subject or "",
                    level=p.level or "", content_hash=p.content_hash,
                )
                for i, p in enumerate(chosen.problems)
            ]  # fmt: skip
        copy(Benchmark, [row for _, row, _ in self.sets.values()])
        copy(Problem, problems)
        copy(PromptSet, [PromptSet(pk=1, name="prompts", content_hash="e" * 64, created_at=NOW,
                                   path="prompts/e.jsonl", prompt_count=4000)])  # fmt: skip

    def checkpoints(self) -> None:
        """Bases, then students of theirs, most of them from distillations, and their runs."""
        kinds = ["Qwen2ForCausalLM", "LlamaForCausalLM", "Phi3ForCausalLM", "GemmaForCausalLM"]
        made: list[Checkpoint] = []
        for i in range(self.count):
            is_base = i < BASES
            base = None if is_base else made[i % BASES]
            created = NOW - timedelta(hours=self.count - i)
            digest = content_hash(f"checkpoint {i}")
            family = kinds[i % BASES % 4]
            made.append(Checkpoint(
                pk=1 + i, name=f"{family[:4].lower()}-{'base' if is_base else 'student'}-{i:04d}",
                content_hash=digest, path=f"checkpoints/{digest}", architecture=family,
                parameters=10 ** 9 * (1 + i % BASES % 14), size_bytes=2 * 10 ** 9, dtype="bfloat16",
                context_tokens=131_072, has_chat_template=True, parent=base,
                tags=[["candidate"], [], [], ["kept", "v2"]][i % 4], licence="apache-2.0",
                project=self.projects[i % PROJECTS], owner=self.users[i % PEOPLE],
                created_at=created,
            ))  # fmt: skip
            self._runs_of(made[-1], i, created)
        copy(Checkpoint, made)

    def _runs_of(self, checkpoint: Checkpoint, i: int, created: datetime) -> None:
        plan = [(name, preset, self._n(name, preset, n, i)) for name, preset, n in PLAN]
        groups = [plan[:5], plan[5:]]
        if checkpoint.parent is not None and i % 5 < 3:
            run = self._run(checkpoint, "distillation", f"Distil {checkpoint.name}", created)
            checkpoint.produced_by = run
            config = {"teacher": 1 + i % BASES, "base": checkpoint.parent.pk, "prompt_set": 1}
            run.config = self.recipe | {
                "teacher": f"teacher-{i % 7}", "base": checkpoint.parent.name,
                "student": checkpoint.name,
            }  # fmt: skip
            for kind in ("preflight", "generate", "filter", "train"):
                self._stage(run, kind, config=config)
            groups = [plan[:3], plan[3:]]
            self._evaluations(run, checkpoint, groups.pop(0), i, "student")
        for group in groups:
            run = self._run(checkpoint, "evaluation", f"Evaluate {checkpoint.name}", created)
            self._evaluations(run, checkpoint, group, i, "")

    def _n(self, name: str, preset: str, n: int, i: int) -> int:
        if preset != "r1" or i % SOME:
            return n
        return {"aime_2024": 64, "math_500": 4}.get(name, n)

    def _run(self, checkpoint: Checkpoint, kind: str, name: str, created: datetime) -> Run:
        run = Run(
            pk=1 + len(self.rows.runs), kind=kind, name=name, config={}, owner=checkpoint.owner,
            project=checkpoint.project, created_at=created, started_at=created,
            finished_at=created + timedelta(hours=3), state=State.FINISHED,
        )  # fmt: skip
        self.rows.runs.append(run)
        return run

    def _stage(self, run: Run, kind: str, **values: Any) -> Stage:
        position = Counter(stage.run_id for stage in self.rows.stages[-30:])[run.pk]
        stage = Stage(
            pk=1 + len(self.rows.stages), run=run, position=position, kind=kind,
            title=f"{kind.capitalize()} {run.name}"[:120], state=State.FINISHED, unit="completions",
            done=4000, total=4000, tokens=8_000_000, tokens_per_second=1234.5,
            log_tail="a line of a log\n" * 20, started_at=run.started_at,
            finished_at=run.finished_at, **values,
        )  # fmt: skip
        if kind == "filter":
            stage.result = {"funnel": FUNNEL, "manifest_hash": "a" * 64, "corpus": "nowhere"}
        self.rows.stages.append(stage)
        for index in range(SHARDS[kind]):
            self._shard(stage, index)
        if kind == "train":
            self._points(stage, range(0, 2000, 10))
        return stage

    def _shard(self, stage: Stage, index: int) -> None:
        rows, run = self.rows, stage.run
        shard = Shard(
            pk=1 + len(rows.shards), stage=stage, index=index, state=State.FINISHED, attempts=1,
            work={"problem_ids": [f"p-{i:03d}" for i in range(30)]}, worker=f"host{index % 3}/123",
            done=250, total=250, tokens=500_000, usage={"devices": 1}, updated_at=LATER,
        )  # fmt: skip
        rows.shards.append(shard)
        if stage.kind == "generate":
            tally = Tally(prompts=250, prompts_verified=140, traces=1000, traces_verified=500,
                          prompt_tokens=50_000, completion_tokens=4_000_000)  # fmt: skip
            rows.points.append(TrainingPoint(
                pk=1 + len(rows.points), stage=stage, step=shard.pk, values=tally.to_json()
            ))  # fmt: skip
        devices = 1 if stage.kind in ("generate", "train", "evaluate") else 0
        rows.entries.append(LedgerEntry(
            pk=1 + len(rows.entries), lease_token=uuid.UUID(int=shard.pk), user=run.owner, run=run,
            stage=stage, shard=shard, kind=stage.kind, worker=shard.worker, ended="finished",
            started_at=run.created_at, ended_at=run.finished_at or LATER, wall_seconds=600.0,
            device_seconds=600.0 * devices, cpu_seconds=700.0, prompt_tokens=50_000,
            completion_tokens=500_000, asks_endpoint=False, lost_share=0.0,
        ))  # fmt: skip

    def _points(self, stage: Stage, steps: range) -> None:
        first = 1 + len(self.rows.points)
        self.rows.points += [
            TrainingPoint(
                pk=first + place, stage=stage, step=step,
                values={"loss": 2.0 / (1 + step), "learning_rate": 1e-5, "grad_norm": 0.5,
                        "tokens_per_second": 10_000.0},
            )
            for place, step in enumerate(steps)
        ]  # fmt: skip

    def _evaluations(
        self, run: Run, checkpoint: Checkpoint, plan: list[tuple[str, str, int]], i: int, role: str
    ) -> None:
        for name, preset, n in plan:
            chosen, benchmark, first = self.sets[name]
            strength = 0.2 + 0.5 * (i % BASES) / BASES + (0.15 if checkpoint.parent else 0.0)
            place = round((strength + self.rng.gauss(0, 0.05)) * ABILITIES)
            shape = self._shapes(name, n)[min(max(place, 0), ABILITIES - 1)]
            turn = self.rng.randrange(chosen.count // PERIOD)
            hashes = self._hashes(name, preset, n)
            evaluation = Evaluation(
                pk=1 + len(self.measured), run=run, checkpoint=checkpoint, role=role, samples=n,
                benchmark=benchmark, protocol=self.protocols[preset], engine=ENGINE,
                measurement_hash=hashes["measurement_hash"],
                run_fingerprint=hashes["run_fingerprint"], created_at=run.created_at,
                rendered_prompt=chosen.problems[0].problem * 3,
                pass_at_1=shape.metrics["pass@1"]["value"],
            )  # fmt: skip
            evaluation.metrics = Text(shape.turned(turn, hashes))
            stage = self._stage(run, "evaluate", evaluation=evaluation)
            shard = self.rows.shards[-1]
            self._stage(run, "grade", evaluation=evaluation)
            segment = Segment(
                pk=1 + len(self.rows.segments), shard=shard, name=f"{stage.pk:08d}-none.jsonl.zst",
                lease_token=uuid.UUID(int=shard.pk), sha256="b" * 64, accepted_at=run.created_at,
                row_count=len(shape.samples), size_bytes=900 * len(shape.samples),
            )  # fmt: skip
            self.rows.segments.append(segment)
            self.measured.append(Measured(evaluation, shape, turn, first, segment))

    def _shapes(self, name: str, n: int) -> list[Shape]:
        if (name, n) not in self.shapes:
            chosen = self.sets[name][0]
            self.shapes[name, n] = [
                draw(chosen, n, (place + 0.5) / ABILITIES, seed=1000 * n + place)
                for place in range(ABILITIES)
            ]
        return self.shapes[name, n]

    def _hashes(self, name: str, preset: str, n: int) -> dict[str, Any]:
        key = name, preset, n
        if key not in self.hashes:
            made = passport.make(
                PRESETS[preset], benchmark=name, problems_hash=self.sets[name][1].content_hash,
                samples=n, engine=ENGINE,
            )  # fmt: skip
            self.hashes[key] = {
                "measurement_hash": made.measurement_hash, "run_fingerprint": made.run_fingerprint,
                **made.to_json(),
            }  # fmt: skip
        return self.hashes[key]

    def few_open(self) -> None:
        """Of the newest runs some are not over, and of all some failed."""
        for run in self.rows.runs[-12:]:
            run.state, run.finished_at = State.RUNNING, None
        for run in self.rows.runs[5::97]:
            run.state, run.error = State.FAILED, "The worker's memory was full; give it more."

    def completions(self) -> Iterator[str]:
        """COPY's lines, an evaluation at a time; some have their texts in a file."""
        for place, each in enumerate(self.measured):
            has_file = place % WITH_TEXTS == 0
            offsets = _write_texts(each) if has_file else None
            yield "".join(_lines(each, offsets))


def _write_texts(each: Measured) -> list[int]:
    """Write the segment; the offsets of its rows, and the segment's own row made true."""
    stage = each.segment.shard.stage
    prefix = f"{each.segment.shard_id:08d}-{each.segment.lease_token.hex}"
    offsets, size = [], 0
    endless = {"seal_rows": 10**9, "seal_bytes": 1 << 40, "seal_seconds": 1e9}
    with SegmentWriter(files.segments_folder(stage), prefix=prefix, **endless) as writer:  # type: ignore[arg-type]
        for sample in each.shape.samples:
            problem = each.shape.problems[each.shape.position(sample, each.turn)]
            text = f"<think>\n{THOUGHT * 20}\n</think>\n$\\boxed{{{sample.answer}}}$"
            writer.append({
                "problem_id": problem.id, "sample": sample.sample, "text": text, "reasoning": None,
                "finish_reason": sample.finish, "prompt_tokens": 80,
                "completion_tokens": sample.tokens,
            })  # fmt: skip
            offsets.append(size)
            size += len(writer._lines[-1])
        sealed = writer.seal()
    assert sealed is not None
    segment = each.segment
    segment.name, segment.sha256, segment.size_bytes = sealed.name, sealed.sha256, sealed.bytes
    return offsets


def _lines(each: Measured, offsets: list[int] | None) -> Iterator[str]:
    pk, segment, first, shape = each.evaluation.pk, each.segment.pk, each.first_problem, each.shape
    shift, count = each.turn * PERIOD, len(shape.problems)
    for place, s in enumerate(shape.samples):
        problem = first + (s.position + shift) % count
        answer = "\\N" if s.answer is None else s.answer
        offset = 900 * place if offsets is None else offsets[place]
        yield (
            f"{pk}\t{problem}\t{s.sample}\t{s.outcome}\t{answer}\t{s.reason}\t{s.finish}\t80\t"
            f"{s.tokens}\t{segment}\t{offset}\n"
        )


ENGINE = {"name": "vllm", "version": "0.32", "dtype": "bfloat16", "hardware": "8 × H100"}
FUNNEL = {"steps": [
    {"step": "drawn", "kept": 16_000, "dropped": 0, "reasons": {}},
    {"step": "answer", "kept": 8_000, "dropped": 8_000, "reasons": {"wrong_answer": 8_000}},
    {"step": "mixed_language", "kept": 7_000, "dropped": 1_000, "reasons": {"mixed": 1_000}},
]}  # fmt: skip


def _disputes(filler: Filler) -> None:
    """A hundred evaluations with a dispute."""
    chosen = filler.measured[7::200]
    copy(Dispute, [
        Dispute(
            pk=1 + i, evaluation=each.evaluation, problem_id=each.first_problem, sample=0,
            claim="wrong", reason="The reference answer is wrong.", outcome="correct",
            answer="100", author=each.evaluation.run.owner, created_at=NOW,
        )
        for i, each in enumerate(chosen)
    ])  # fmt: skip
    copy(DisputedScore, [
        DisputedScore(pk=1 + i, evaluation=each.evaluation, wanted=1, scored=1,
                      metrics=each.shape.metrics)
        for i, each in enumerate(chosen)
    ])  # fmt: skip


def fill(checkpoints: int = CHECKPOINTS) -> dict[str, int]:
    """Ten evaluations of each checkpoint, some 2,700 completions; returns the tables' rows."""
    filler = Filler(checkpoints)
    with bulk():
        filler.people()
        filler.benchmarks()
        filler.checkpoints()
        filler.few_open()
        copy(Run, filler.rows.runs)
        copy(Evaluation, (each.evaluation for each in filler.measured))
        copy(Stage, filler.rows.stages)
        copy(Shard, filler.rows.shards)
        copy(LedgerEntry, filler.rows.entries)
        copy(TrainingPoint, filler.rows.points)
        with without_indexes(Completion):
            copy_lines(Completion, KEYS, filler.completions())
        copy(Segment, filler.rows.segments)
        _disputes(filler)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM (ANALYZE)")
    models = (Project, User, Checkpoint, Run, Evaluation, Stage, Shard, Segment, LedgerEntry,
              TrainingPoint, Completion)  # fmt: skip
    return {model._meta.db_table: model.objects.count() for model in models}

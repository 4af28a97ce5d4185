"""Rows and files as the workers leave them, for tests of pages: real segments, real metrics."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from django.utils import timezone

from evaluator.metrics import aggregate
from evaluator.protocol import PRESETS, Protocol, measurement_hash, run_fingerprint
from evaluator.records import Completion as CompletionRecord
from evaluator.records import FinishReason, Outcome, Problem, content_hash, problems_hash
from evaluator.store import SegmentWriter, read_segment
from webapp.benchmarks.models import Benchmark
from webapp.benchmarks.models import Problem as ProblemRow
from webapp.checkpoints.models import Checkpoint
from webapp.projects.access import first_project
from webapp.projects.models import Membership, Project, Role
from webapp.runs import files
from webapp.runs.models import Completion, Evaluation, Run, Segment, Shard, Stage, State

Draw = Callable[[random.Random, Problem, int], tuple[str, Outcome, str | None, str]]

HOSTILE = '<script>window.stolen = 1</script><img src=x onerror="window.stolen = 1">'


def text_of(response: Any) -> str:
    """The page of an answer; fails where it is none."""
    assert response.status_code == 200, response.status_code
    return str(response.content.decode())


def arithmetic(count: int) -> list[Problem]:
    return [
        Problem(
            id=f"sum-{i:03d}", problem=f"What is ${i} + {i * 7 % 50}$?", answer=str(i + i * 7 % 50),
            subject="sums" if i % 2 else "larger sums", level=str(1 + i % 3),
        )
        for i in range(count)
    ]  # fmt: skip


def make_project(name: str, members: Mapping[Any, Role] | None = None, **values: Any) -> Project:
    """A project of these people, in these roles; nobody else has one in it."""
    project = Project.objects.create(name=name, **values)
    for person, role in (members or {}).items():
        Membership.objects.create(project=project, user=person, role=role)
    return project


def everything() -> frozenset[int]:
    """The keys of all projects: what an administrator sees."""
    return frozenset(Project.objects.values_list("pk", flat=True))


def make_checkpoint(owner: Any, name: str, **values: Any) -> Checkpoint:
    digest = content_hash(name)
    defaults: dict[str, Any] = {
        "project": values.get("project") or first_project(),
        "content_hash": digest, "path": f"checkpoints/{digest}", "dtype": "bfloat16",
        "architecture": "Qwen2ForCausalLM", "parameters": 1_543_714_304,
        "size_bytes": 3_087_467_144,
        "context_tokens": 131072, "has_chat_template": True,
    }  # fmt: skip
    return Checkpoint.objects.create(owner=owner, name=name, **{**defaults, **values})


def make_benchmark(
    problems: Sequence[Problem], name: str = "arithmetic", title: str = "Arithmetic"
) -> Benchmark:
    benchmark = Benchmark.objects.create(
        name=name, title=title, content_hash=problems_hash(list(problems)), grader="integer",
        problem_count=len(problems), source="made by a test",
    )  # fmt: skip
    ProblemRow.objects.bulk_create(
        ProblemRow(
            benchmark=benchmark, problem_id=p.id, position=i, problem=p.problem, answer=p.answer,
            subject=p.subject or "", level=p.level or "", content_hash=p.content_hash,
        )
        for i, p in enumerate(problems)
    )  # fmt: skip
    return benchmark


def plain_draw(ability: float) -> Draw:
    """Samples of a model that is right with this chance."""

    def draw(rng: random.Random, problem: Problem, sample: int) -> Any:
        thoughts = f"<think>\nI add the numbers of {problem.problem}\n</think>\n"
        lot = rng.random()
        if lot < ability:
            text = thoughts + f"The sum is $\\boxed{{{problem.answer}}}$."
            return text, Outcome.CORRECT, problem.answer, "equal integers"
        if lot < ability + 0.8 * (1 - ability):
            wrong = str(int(problem.answer) + rng.randint(1, 3))
            text = thoughts + f"The sum is $\\boxed{{{wrong}}}$."
            return text, Outcome.WRONG, wrong, "other integers"
        if lot < ability + 0.9 * (1 - ability):
            return "<think>\nI add and", Outcome.TRUNCATED, None, "stopped by the token limit"
        return "<think>\nhm\n</think>\n", Outcome.NO_ANSWER, None, "the answer part holds none"

    return draw


def make_run(owner: Any, name: str, kind: str, state: str = State.FINISHED, **values: Any) -> Run:
    now = timezone.now()
    done = state in (State.FINISHED, State.FAILED, State.CANCELLED)
    return Run.objects.create(
        project=values.pop("project", None) or first_project(),
        owner=owner, name=name, kind=kind, state=state, config=values.pop("config", {}),
        started_at=now, finished_at=now if done else None, **values,
    )  # fmt: skip


def make_stage(run: Run, position: int, kind: str, title: str, **values: Any) -> Stage:
    values.setdefault("state", State.FINISHED)
    if values["state"] != State.WAITING:
        values.setdefault("started_at", run.started_at)
    if values["state"] in (State.FINISHED, State.FAILED):
        values.setdefault("finished_at", timezone.now())
    return Stage.objects.create(run=run, position=position, kind=kind, title=title, **values)


def make_evaluation(
    owner: Any,
    checkpoint: Checkpoint,
    benchmark: Benchmark,
    problems: Sequence[Problem],
    *,
    samples: int = 4,
    draw: Draw | None = None,
    seed: int = 0,
    protocol: Protocol | None = None,
    role: str = "",
    run: Run | None = None,
) -> Evaluation:
    protocol = protocol or PRESETS["quick"]
    run = run or make_run(
        owner, f"{checkpoint} on {benchmark}", Run.Kind.EVALUATION, project=checkpoint.project
    )
    engine = {"name": "transformers", "dtype": "float32"}
    evaluation = Evaluation.objects.create(
        run=run, checkpoint=checkpoint, benchmark=benchmark, role=role, samples=samples,
        protocol=protocol.model_dump(mode="json"), engine=engine,
        measurement_hash=measurement_hash(
            protocol, problems_hash=benchmark.content_hash, prompt="{problem}", grader="integer/1"
        ),
        run_fingerprint=run_fingerprint(protocol, samples=samples, engine=engine),
        rendered_prompt=problems[0].problem,
    )  # fmt: skip
    stage = make_stage(
        run, run.stages.count(), "evaluate", f"Evaluate {checkpoint}"[:120], evaluation=evaluation,
        done=len(problems) * samples, total=len(problems) * samples, unit="completions",
    )  # fmt: skip
    rows = _write_completions(
        evaluation, stage, problems, draw or plain_draw(0.6), random.Random(seed)
    )
    make_stage(run, run.stages.count(), "grade", f"Grade {checkpoint}"[:120], evaluation=evaluation)
    evaluation.metrics = aggregate(
        problems, rows, benchmark=benchmark.name, grader="integer/1", samples=samples,
        measurement_hash=evaluation.measurement_hash, run_fingerprint=evaluation.run_fingerprint,
        equal=lambda pairs: [a == b for a, b in pairs],
    )  # fmt: skip
    evaluation.pass_at_1 = evaluation.metrics["pass@1"]["value"]
    evaluation.save()
    return evaluation


def _write_completions(
    evaluation: Evaluation,
    stage: Stage,
    problems: Sequence[Problem],
    draw: Draw,
    rng: random.Random,
) -> list[dict[str, Any]]:
    lease = uuid.uuid4()
    shard = Shard.objects.create(stage=stage, index=0, state=State.FINISHED)
    folder = files.segments_folder(stage)
    graded = {}
    endless = {"seal_rows": 10**9, "seal_bytes": 1 << 40, "seal_seconds": 1e9}  # one segment
    with SegmentWriter(folder, prefix=f"{shard.pk:08d}-{lease.hex}", **endless) as writer:
        for problem in problems:
            for sample in range(evaluation.samples):
                text, outcome, answer, reason = draw(rng, problem, sample)
                cut = outcome is Outcome.TRUNCATED
                record = CompletionRecord(
                    problem_id=problem.id, sample=sample, text=text, prompt_tokens=12,
                    finish_reason=FinishReason.LENGTH if cut else FinishReason.STOP,
                    completion_tokens=max(len(text) // 4, 1),
                )  # fmt: skip
                writer.append(record.to_json())
                graded[record.key] = (outcome, answer, reason)
        sealed = writer.seal()
    assert sealed is not None
    segment = Segment.objects.create(
        shard=shard, name=sealed.name, lease_token=lease, sha256=sealed.sha256,
        row_count=sealed.rows, size_bytes=sealed.bytes,
    )  # fmt: skip
    keys = {p.problem_id: p for p in evaluation.benchmark.problems.all()}
    completions, rows = [], []
    for offset, row in read_segment(folder / sealed.name):
        outcome, answer, reason = graded[row["problem_id"], row["sample"]]
        completions.append(
            Completion(
                evaluation=evaluation, problem=keys[row["problem_id"]], sample=row["sample"],
                outcome=outcome, answer=answer, reason=reason, finish_reason=row["finish_reason"],
                prompt_tokens=row["prompt_tokens"], completion_tokens=row["completion_tokens"],
                segment=segment, offset=offset,
            )
        )  # fmt: skip
        rows.append({**row, "outcome": outcome, "answer": answer})
    assert len(completions) == len(problems) * evaluation.samples
    Completion.objects.bulk_create(completions, batch_size=5000)
    return rows


FUNNEL = {
    "steps": [
        {"step": "drawn", "kept": 10, "dropped": 0, "reasons": {}},
        {"step": "answer", "kept": 8, "dropped": 2, "reasons": {"wrong_answer": 2}},
        {"step": "mixed_language", "kept": 7, "dropped": 1, "reasons": {"mixed_language": 1}},
    ]
}


PREFLIGHT = {
    "checks": [
        {"name": "template", "level": "ok", "detail": "the base's own"},
        {"name": "padding", "level": "warning", "detail": "it is shared; name another"},
        {"name": "context", "level": "error", "detail": "it is too short; stretch it"},
    ],
    "errors": 1, "warnings": 1, "figures": {},
    "example": [
        {"text": f"asked {HOSTILE}", "supervised": False},
        {"text": f"answered {HOSTILE}", "supervised": True},
    ],
}  # fmt: skip


def write_corpus(folder: Path) -> None:
    """Kept and dropped traces, as the filter stage leaves them beside the corpus."""
    rows = [
        {
            "problem_id": f"prob-{i}", "sample": 0, "completion": f"<think>a</think>{HOSTILE}",
            "finish_reason": "stop", "problem": HOSTILE, "answer": HOSTILE,
        }
        for i in range(7)
    ]  # fmt: skip
    (folder / "kept.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dropped = [{**row, "step": "answer", "reason": "wrong_answer"} for row in rows[:3]]
    (folder / "dropped.jsonl").write_text("".join(json.dumps(row) + "\n" for row in dropped))

"""Grading in shards, merged, is grading in one go."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

from evaluator.benchmarks import arithmetic
from evaluator.child import Reporter, ShardRequest
from evaluator.protocol import Protocol
from evaluator.records import Completion, FinishReason
from evaluator.stages import GradeStage
from evaluator.store import SegmentWriter, read_segment

SAMPLES = 3


def spec_of(folder: Path) -> dict[str, Any]:
    problems = arithmetic.generate(12, seed=4)
    (folder / "problems.jsonl").write_text(
        "".join(json.dumps(problem.to_json()) + "\n" for problem in problems)
    )
    rng = random.Random(1)
    writer = SegmentWriter(folder / "drawn", prefix="drawn")
    for problem in problems:
        for sample in range(SAMPLES):
            answer = int(problem.answer) + rng.choice((0, 0, 1))
            text = rf"hm, \boxed{{{answer}}}" if rng.random() < 0.9 else "hm"
            writer.append(
                Completion(
                    problem.id, sample, text, FinishReason.STOP, completion_tokens=len(text)
                ).to_json()
            )
    sealed = writer.seal()
    assert sealed is not None
    return {
        "kind": "grade", "stage_folder": str(folder), "segments_folder": str(folder / "segments"),
        "benchmark": "arithmetic", "problems_file": str(folder / "problems.jsonl"),
        "protocol": Protocol(samples=SAMPLES).model_dump(mode="json"), "jobs": 1,
        "segment_files": [str(folder / "drawn" / sealed.name)],
        "measurement_hash": "m", "run_fingerprint": "f", "engine": {"name": "replay"},
    }  # fmt: skip


def test_shards_read_an_endpoint_by_all_that_it_wrote(tmp_path: Path) -> None:
    """Its template opens the thoughts: what was cut off while thinking holds no tag, no answer."""
    spec = spec_of(tmp_path)
    problems = arithmetic.generate(12, seed=4)
    writer = SegmentWriter(tmp_path / "drawn", prefix="served")
    for index, problem in enumerate(problems):
        for sample in range(SAMPLES):
            cut = index < 4  # of the first shard, every one
            text = rf"perhaps \boxed{{{problem.answer}}}" + ("" if cut else "</think>")
            text += "" if cut else rf"\boxed{{{problem.answer}}}"
            reason = FinishReason.LENGTH if cut else FinishReason.STOP
            writer.append(Completion(problem.id, sample, text, reason).to_json())
    sealed = writer.seal()
    assert sealed is not None
    spec["segment_files"] = [str(tmp_path / "drawn" / sealed.name)]
    spec["engine"] = {"name": "openai", "api": "chat"}
    outcomes = {"truncated": 4 * SAMPLES, "correct": 8 * SAMPLES}
    whole = grade(spec, 9, {})["metrics"]
    assert {name: n for name, n in whole["outcomes"].items() if n} == outcomes
    for path in Path(spec["segments_folder"]).iterdir():
        path.unlink()
    for shard in range(3):
        ids = [problem.id for problem in problems[4 * shard : 4 * shard + 4]]
        grade(spec, shard, {"problem_ids": ids})
    names = [path.name for path in Path(spec["segments_folder"]).iterdir()]
    assert grade(spec, 4, {"merge": True}, *names)["metrics"] == whole
    # The prompt that is rendered here says itself whether it opens them.
    spec["engine"] = {"name": "vllm"}
    assert grade(spec, 5, {})["metrics"]["outcomes"]["correct"] == 12 * SAMPLES


def grade(spec: dict[str, Any], shard: int, work: dict[str, Any], *accepted: str) -> dict[str, Any]:
    """Do one shard as a child does; returns its result."""
    report = Reporter(io.StringIO())
    request = ShardRequest(shard, f"{shard:032x}", work, accepted)
    return dict(GradeStage(spec, report).run(request, report))


def test_shards_that_are_merged_score_as_one_shard_does(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    whole = grade(spec, 9, {})
    segments = Path(spec["segments_folder"])
    for path in segments.iterdir():
        path.unlink()
    ids = [json.loads(line)["id"] for line in Path(spec["problems_file"]).read_text().splitlines()]
    for shard, start in ((1, 8), (2, 0), (3, 4)):  # in no order
        assert grade(spec, shard, {"problem_ids": ids[start : start + 4]}) == {}
    verdicts = sorted(path.name for path in segments.iterdir())
    assert sum(len(list(read_segment(segments / name))) for name in verdicts) == 12 * SAMPLES
    merged = grade(spec, 4, {"merge": True}, *verdicts)
    assert merged == whole
    assert 0 < whole["metrics"]["pass@1"]["value"] < 1
    # Every verdict stood already: merging gives none again.
    assert sorted(path.name for path in segments.iterdir()) == verdicts

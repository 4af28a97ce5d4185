"""A child says which tokens it has drawn under its own lease, whatever becomes of them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from distiller.stages import GenerateStage
from evaluator import engines
from evaluator.benchmarks import arithmetic
from evaluator.child import Reporter, ShardRequest
from evaluator.protocol import Protocol
from evaluator.records import Completion, FinishReason
from evaluator.stages import EvaluateStage
from tests.distiller.samples import recipe

PROBLEMS = arithmetic.generate(3, seed=4)
SAMPLES = 2


class Scripted:
    """Draws 5 tokens for each prompt of 7; breaks after so many; every third is not counted."""

    def __init__(self, breaks_after: int | None) -> None:
        self.left = breaks_after

    def describe(self) -> dict[str, Any]:
        return {"name": "scripted"}

    def render(self, problem: str, *, prompt: str, protocol: Protocol) -> str:
        return problem

    def generate(self, requests: Sequence[Any], sampling: Any) -> Iterator[Completion]:
        for number, request in enumerate(requests):
            if self.left == 0:
                raise OSError("the line was cut")
            self.left = None if self.left is None else self.left - 1
            counts = {} if number % 3 == 2 else {"prompt_tokens": 7, "completion_tokens": 5}
            yield Completion(*request.key, "hm", FinishReason.STOP, **counts)  # type: ignore[arg-type]

    def close(self) -> None:
        pass


def spec_of(kind: str, folder: Path) -> dict[str, Any]:
    problems = folder / "problems.jsonl"
    problems.write_text("".join(json.dumps(each.to_json()) + "\n" for each in PROBLEMS))
    common = {
        "kind": kind, "stage_folder": str(folder), "segments_folder": str(folder / "segments"),
        "engine": {"name": "scripted"},
    }  # fmt: skip
    if kind == "evaluate":
        protocol = Protocol(samples=SAMPLES).model_dump(mode="json")
        own = {"benchmark": "arithmetic", "problems_file": str(problems), "protocol": protocol}
    else:
        chosen = recipe(generation={"samples": SAMPLES})
        own = {"recipe": chosen.model_dump(mode="json"), "prompts_file": str(problems)}
    return common | own


@pytest.mark.parametrize("kind", ["evaluate", "generate"])
def test_tokens_are_those_of_the_lease_and_of_no_earlier_one(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = {"evaluate": EvaluateStage, "generate": GenerateStage}[kind]
    work = {"problem_ids": [problem.id for problem in PROBLEMS]}
    accepted: tuple[str, ...] = ()
    told = []
    for lease, breaks_after in (("a" * 32, 4), ("b" * 32, None)):
        engine = Scripted(breaks_after)
        monkeypatch.setattr(engines, "create", lambda settings, engine=engine: engine)
        events = io.StringIO()
        handler = stage(spec_of(kind, tmp_path), Reporter(io.StringIO()))
        request = ShardRequest(1, lease, work, accepted)
        report = Reporter(events, request)
        if breaks_after is None:
            handler.run(request, report)
        else:
            with pytest.raises(OSError, match="cut"):
                handler.run(request, report)
        lines = [json.loads(line) for line in events.getvalue().splitlines()]
        accepted += tuple(line["name"] for line in lines if line["event"] == "segment")
        told.append([line for line in lines if line["event"] == "usage"][-1])
    assert [line["lease"] for line in told] == ["a" * 32, "b" * 32]
    counts = [
        (line["prompt_tokens"], line["completion_tokens"], line["uncounted"]) for line in told
    ]
    assert counts == [(21, 15, 1), (14, 10, 0)]

"""A distiller's child whose teacher is scripted: its texts depend on problem and seed alone.

python tests/hosts/teacher.py stage SPEC.json
"""

from __future__ import annotations

import random
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from evaluator import engines
from evaluator.engines import Request
from evaluator.protocol import Protocol, Sampling
from evaluator.records import Completion, FinishReason

SECONDS = 0.03  # a trace takes so long, so that there is time for two hosts


class Teacher:
    """An engine that adds up right three times in four."""

    OPTIONS: ClassVar[tuple[str, ...]] = ("model",)

    def __init__(self, model: str) -> None:
        if not (Path(model) / "model.safetensors").is_file():
            raise SystemExit(f"the teacher's files are not at {model}")

    def describe(self) -> dict[str, Any]:
        return {"name": "scripted"}

    def render(self, problem: str, *, prompt: str, protocol: Protocol) -> str:
        return problem

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
        for each in requests:
            time.sleep(SECONDS)
            yield Completion(
                each.problem_id, each.sample, written(each.prompt, each.seed), FinishReason.STOP,
                prompt_tokens=len(each.prompt), completion_tokens=20, seed=each.seed,
            )  # fmt: skip

    def close(self) -> None:
        pass


def written(problem: str, seed: int) -> str:
    """The trace of a problem such as ``12+7-30`` under a seed."""
    total = sum(int(term) for term in re.findall(r"[+-]?\d+", problem))
    slip = random.Random(seed).choice((0, 0, 0, 1))
    return rf"<think>{problem}={total + slip}</think>\boxed{{{total + slip}}}"


if __name__ == "__main__":
    from distiller.cli import main

    engines._ENGINES["transformers"] = (Teacher.__module__, Teacher.__name__)
    sys.exit(main())

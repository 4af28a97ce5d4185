"""vLLM, on whatever this machine has, against the transformers engine."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from evaluator.store import Store

REPOSITORY = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.vllm,
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None, reason="vLLM is not installed on this machine"
    ),
]


def run(*arguments: object) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "evaluator", *map(str, arguments)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_greedy_vllm_gives_what_greedy_transformers_gives(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    problems = tmp_path / "sums.jsonl"
    run("arithmetic", "--count", 100, "--seed", 4, "--output", problems)
    protocol = tmp_path / "protocol.json"
    protocol.write_text(
        json.dumps({
            "samples": 1, "prompt": "{problem}",
            "sampling": {"temperature": 0.0, "top_p": 1.0, "max_tokens": 40},
        })
    )  # fmt: skip
    texts = {}
    for engine in ("transformers", "vllm"):
        run(
            "run", "--benchmark", "arithmetic", "--problems", problems, "--engine", engine,
            "--model", tiny_checkpoint, "--protocol", protocol, "--out", tmp_path / engine,
        )  # fmt: skip
        rows = list(Store(tmp_path / engine / "segments").rows())
        texts[engine] = {row["problem_id"]: row for row in rows}
    assert texts["vllm"].keys() == texts["transformers"].keys()
    assert len(texts["vllm"]) == 100
    same = 0
    for problem_id, row in texts["vllm"].items():
        other = texts["transformers"][problem_id]
        assert row["seed"] == other["seed"]
        assert row["prompt_tokens"] == other["prompt_tokens"]
        same += all(
            row[field] == other[field] for field in ("text", "finish_reason", "completion_tokens")
        )
    assert same >= 95
    described = json.loads((tmp_path / "vllm" / "run.json").read_text())["engine"]
    assert described["name"] == "vllm"

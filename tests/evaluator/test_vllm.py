"""vLLM, on whatever this machine has, against the transformers engine."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from evaluator.benchmarks.arithmetic import generate
from evaluator.engines import Request, create
from evaluator.errors import InputError
from evaluator.protocol import Protocol, Sampling
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


@contextmanager
def served(checkpoint: Path, log: Path) -> Iterator[str]:
    """vLLM's own server on the loopback; its base URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(checkpoint),
        "--served-model-name", "tiny", "--host", "127.0.0.1", "--port", str(port),
        "--dtype", "float32", "--enforce-eager",
    ]  # fmt: skip
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    with log.open("w") as file:
        server = subprocess.Popen(
            command, stdout=file, stderr=file, env=environment, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 300
        while "Application startup complete" not in log.read_text():
            assert server.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


def test_a_served_checkpoint_answers_as_it_does_here(tiny_checkpoint: Path, tmp_path: Path) -> None:
    greedy = Sampling(temperature=0.0, top_p=1.0, max_tokens=1000)
    warm = Sampling(temperature=1.0, top_p=0.9, max_tokens=20)
    protocol = Protocol()
    local = create({"name": "transformers", "model": str(tiny_checkpoint)})
    texts = [
        local.render(p.problem, prompt="{problem}", protocol=protocol) for p in generate(40, seed=4)
    ]
    asked = [Request(f"p{number}", 0, text, seed=number) for number, text in enumerate(texts)]
    here = {each.key: each for each in local.generate(asked, greedy)}
    with served(tiny_checkpoint, tmp_path / "log") as url:
        settings = {"name": "openai", "model": "tiny", "base_url": url}
        chat = create(settings)
        described = chat.describe()
        assert (described["server"], described["context_tokens"]) == ("vllm", 96)
        messages = [
            dataclasses.replace(
                request,
                prompt=chat.render(problem.problem, prompt="{problem}", protocol=protocol),
            )
            for request, problem in zip(asked, generate(40, seed=4), strict=True)
        ]
        rendered = create({**settings, "api": "completions", "tokenizer": str(tiny_checkpoint)})
        for source, requests in ((chat, messages), (rendered, asked)):
            there = {each.key: each for each in source.generate(requests, greedy)}
            assert there.keys() == here.keys()
            same = [
                (each.text, each.finish_reason, each.completion_tokens, each.prompt_tokens)
                == (
                    here[key].text, here[key].finish_reason,
                    here[key].completion_tokens, here[key].prompt_tokens,
                )
                for key, each in there.items()
            ]  # fmt: skip
            assert sum(same) >= 38, there
        twice = [{each.key: each.text for each in rendered.generate(asked, warm)} for _ in range(2)]
        assert sum(twice[0][key] == twice[1][key] for key in twice[0]) >= 38, "seeds are obeyed"
        with pytest.raises(InputError, match=r"HTTP 404: .*check model and base_url"):
            list(create({**settings, "model": "other"}).generate(messages, greedy))

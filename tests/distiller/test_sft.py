"""The training loop: what is learnt, what is weighed, and what a kill changes (nothing)."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from distiller import corpus, sft
from distiller.corpus import Encoder, Example
from distiller.errors import InputError, TrainingError
from distiller.recipe import Training
from distiller.toy import solve
from evaluator.benchmarks import arithmetic
from tests.distiller.samples import make_tiny, recipe, trace

FAST = {"epochs": 2, "learning_rate": 1e-2, "batch_size": 4, "max_length_tokens": 128}


@pytest.fixture(scope="module")
def eight(tiny_qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of eight examples."""
    out = tmp_path_factory.mktemp("eight") / "corpus"
    chosen = recipe(tiny_qwen)
    traces = [
        trace(solve(p.problem), problem=p.problem, answer=p.answer)
        for p in arithmetic.generate(8, seed=5, terms=2)
    ]
    corpus.build(traces, encoder=Encoder(tiny_qwen, chosen), recipe=chosen, out=out)
    return out


def run(corpus_folder: Path, base: Path, out: Path, **options: Any) -> sft.Trained:
    training = Training(**{**FAST, **options.pop("training", {})})
    resume = options.pop("resume", out.with_name(f"{out.name}.resume"))
    return sft.train(corpus_folder, base, training, out, resume=resume, **options)


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_eight_examples_can_be_learnt_by_heart(kind: str, eight: Path, tmp_path: Path) -> None:
    base = make_tiny(kind, tmp_path / "base")
    steps: list[dict[str, float]] = []
    trained = run(
        eight, base, tmp_path / "out", training={"epochs": 150, "learning_rate": 1e-2},
        on_step=lambda step, values: steps.append({"step": step, **values}),
    )  # fmt: skip
    assert trained.steps == 300
    assert steps[0]["loss"] > 3
    assert trained.loss == steps[-1]["loss"] < 0.05
    assert set(steps[0]) == {"step", "loss", "learning_rate", "grad_norm", "tokens_per_second"}
    tokenizer = AutoTokenizer.from_pretrained(trained.checkpoint)
    model = AutoModelForCausalLM.from_pretrained(trained.checkpoint)
    for example in corpus.read(eight)[0]:
        prompt = torch.tensor([example.input_ids[: example.prompt_tokens]])
        ids = model.generate(input_ids=prompt, max_new_tokens=64, do_sample=False)[0]
        assert ids.tolist() == list(example.input_ids), tokenizer.decode(ids)


def test_first_loss_is_the_mean_over_response_tokens(
    eight: Path, tiny_qwen: Path, tmp_path: Path
) -> None:
    """Brute force: one sequence at a time, no padding, one token at a time."""
    examples, _ = corpus.read(eight)
    model = AutoModelForCausalLM.from_pretrained(tiny_qwen)
    total, count = 0.0, 0
    for example in examples:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([example.input_ids])).logits[0].double()
        for at in range(example.prompt_tokens, len(example.input_ids)):
            total -= torch.log_softmax(logits[at - 1], -1)[example.input_ids[at]].item()
            count += 1
    losses: list[float] = []
    run(
        eight, tiny_qwen, tmp_path / "out", training={"batch_size": 8, "epochs": 1},
        on_step=lambda step, values: losses.append(values["loss"]),
    )  # fmt: skip
    assert losses[0] == pytest.approx(total / count, rel=1e-5)


def test_micro_batches_change_nothing(
    eight: Path, tiny_qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(eight, tiny_qwen, tmp_path / "whole", training={"epochs": 1})
    monkeypatch.setattr(sft, "MICRO_BATCH_TOKENS", 50)
    run(eight, tiny_qwen, tmp_path / "split", training={"epochs": 1})
    whole, split = (load_file(tmp_path / n / "model.safetensors") for n in ("whole", "split"))
    for name, weights in whole.items():
        torch.testing.assert_close(weights, split[name], rtol=2e-3, atol=2e-5)


KILLED = """
import os, signal, sys
from pathlib import Path
from distiller import sft
from distiller.recipe import Training
corpus, base, out, resume = map(Path, sys.argv[1:5])
def progress(done, total, tokens):
    if done == 7:
        os.kill(os.getpid(), signal.SIGKILL)
sft.train(corpus, base, Training.model_validate_json(sys.argv[5]), out, resume=resume,
          on_progress=progress)
"""


def test_a_killed_training_ends_in_the_same_weights(
    eight: Path, tiny_qwen: Path, tmp_path: Path
) -> None:
    training = Training(**FAST, save_seconds=1e-9).model_copy(update={"epochs": 6.0})
    resume, out = tmp_path / "resume", tmp_path / "out"
    arguments = [str(path) for path in (eight, tiny_qwen, out, resume)]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments, training.model_dump_json()],
        capture_output=True, check=False, env=dict(os.environ),
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not out.exists()
    assert (resume / sft.STATE_FILE).exists()
    seen: list[int] = []
    resumed = sft.train(
        eight, tiny_qwen, training, out, resume=resume,
        on_progress=lambda done, total, tokens: seen.append(done),
    )  # fmt: skip
    assert seen[0] == 6  # the step that was killed is done again
    unbroken = sft.train(eight, tiny_qwen, training, tmp_path / "b", resume=tmp_path / "none")
    assert (out / "model.safetensors").read_bytes() == (
        tmp_path / "b" / "model.safetensors"
    ).read_bytes()
    assert resumed.loss == unbroken.loss
    assert not resume.exists()


def test_a_state_of_another_training_is_refused(
    eight: Path, tiny_qwen: Path, tmp_path: Path
) -> None:
    class StopHereError(Exception):
        pass

    def stop(done: int, total: int, tokens: int) -> None:
        if done == 2:
            raise StopHereError

    with pytest.raises(StopHereError):
        run(eight, tiny_qwen, tmp_path / "a", training={"save_seconds": 1e-9}, on_progress=stop)
    shutil.copytree(tmp_path / "a.resume", tmp_path / "b.resume")
    with pytest.raises(TrainingError, match="belongs to another training"):
        run(eight, tiny_qwen, tmp_path / "b", training={"seed": 1})


def test_a_loss_that_is_not_finite_stops(eight: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_qwen, tmp_path / "base"))
    model = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        model.model.norm.weight.fill_(math.nan)
    model.save_pretrained(base)
    with pytest.raises(TrainingError, match=r"step 1: .* not finite"):
        run(eight, base, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_too_long_examples_are_refused_before_training(
    eight: Path, tiny_qwen: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(tiny_qwen, tmp_path / "base"))
    model = AutoModelForCausalLM.from_pretrained(base)
    model.config.max_position_embeddings = 8
    model.save_pretrained(base)
    with pytest.raises(InputError, match="only 8 positions"):
        run(eight, base, tmp_path / "out")


def test_bfloat16_saves_bfloat16(eight: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    trained = run(eight, tiny_qwen, tmp_path / "out", training={"dtype": "bfloat16"})
    tensors = load_file(trained.checkpoint / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}


@given(st.integers(1, 40), st.floats(0.1, 5), st.integers(1, 9), st.integers(0, 3))
def test_plan_is_whole_permutations(count: int, epochs: float, size: int, seed: int) -> None:
    batches = sft.plan(count, Training(epochs=epochs, batch_size=size, seed=seed))
    order = [index for batch in batches for index in batch]
    assert len(order) == max(1, round(epochs * count))
    assert all(len(batch) == size for batch in batches[:-1])
    for start in range(0, len(order) - count + 1, count):
        assert sorted(order[start : start + count]) == list(range(count))


@given(st.integers(1, 300), st.floats(0, 1))
def test_learning_rate_warms_up_then_falls(steps: int, warmup: float) -> None:
    shares = [sft.learning_rate_share(step, steps, warmup) for step in range(steps)]
    warm = math.ceil(warmup * steps)
    assert all(0 < share <= 1 for share in shares)
    assert shares[:warm] == sorted(shares[:warm])
    assert shares[warm:] == sorted(shares[warm:], reverse=True)


@given(st.lists(st.integers(2, 300), min_size=1, max_size=30))
def test_micro_batches_hold_each_example_once_and_fit(lengths: list[int]) -> None:
    examples = [Example(str(n), 0, tuple(range(length)), 1) for n, length in enumerate(lengths)]
    parts = list(sft.micro_batches(examples))
    assert sorted(e.problem_id for part in parts for e in part) == sorted(
        e.problem_id for e in examples
    )
    for part in parts:
        padded = len(part) * max(len(example.input_ids) for example in part)
        assert padded <= sft.MICRO_BATCH_TOKENS or len(part) == 1


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=5))
def test_collated_labels_by_brute_force(shapes: list[tuple[int, int]]) -> None:
    rows = [Example("p", 0, (7,) * (a + b), a) for a, b in shapes]
    input_ids, mask, labels = sft.collate(rows)
    for index, (prompt, response) in enumerate(shapes):
        for at in range(input_ids.shape[1]):
            inside = at < prompt + response
            assert mask[index, at] == inside
            assert labels[index, at] == (7 if prompt <= at and inside else -100)

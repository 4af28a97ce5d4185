"""The memory estimate beside measured peaks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from distiller.memory import estimate
from distiller.probe import probe
from distiller.recipe import Training
from tests.distiller.samples import make_tiny, recipe, trace

TRAIN = r"""
import json, re, sys
from pathlib import Path
from distiller import sft
from distiller.recipe import Training
import transformers, torch.optim
corpus, base, out, resume = map(Path, sys.argv[1:5])
def peak():  # in kB; getrusage's would be the parent's where that one was larger
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
before = peak()
sft.train(corpus, base, Training.model_validate_json(sys.argv[5]), out, resume=resume)
print(peak() - before)
"""
WITHIN = 1.6  # the estimate's stated factor


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [True, False])
def test_the_estimate_is_near_the_measured_peak(checkpointing: bool, tmp_path: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, Qwen2Config

    from distiller import corpus, toy
    from distiller.corpus import Encoder

    base = make_tiny("qwen2", tmp_path / "base")
    shape = Qwen2Config(
        vocab_size=8192, hidden_size=256, intermediate_size=768, num_hidden_layers=6,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=4096,
        eos_token_id=toy.tokenizer().eos_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(shape).save_pretrained(base)
    training = Training(
        epochs=3, batch_size=1, max_length_tokens=4096, gradient_checkpointing=checkpointing
    )
    chosen = recipe(base, training=training.model_dump())
    text = f"<think>{'x' * 4000}</think>"
    corpus.build([trace(text)], encoder=Encoder(base, chosen), recipe=chosen, out=tmp_path / "c")
    longest = corpus.read(tmp_path / "c")[1]["longest_tokens"]
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, *(str(tmp_path / n) for n in ("c", "base", "out", "r")),
         training.model_dump_json()],
        capture_output=True, text=True, check=False,
        # Freed memory goes back at once, so that the peak is what was needed at one time.
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout.splitlines()[-1]) * 1024
    parameters, _ = probe(AutoConfig.from_pretrained(base))
    expected = estimate(shape, parameters, training, longest, on_gpu=False).total_bytes
    print(f"measured {measured / 1e6:.0f} MB, estimated {expected / 1e6:.0f} MB")
    assert measured / WITHIN < expected < measured * WITHIN

"""Training on a GPU: ``python -m bench.sft_gpu`` (``--smoke``: a tiny shape, on any machine).

A model of Qwen2.5-1.5B's shape, built from its config with random weights, takes optimizer steps
over sequences of 4,096, 16,384 and 32,768 tokens of which all but an eighth carry loss, with and
without gradient checkpointing: tokens per second, MFU (distiller.optim.step_flops over the data
sheet's dense bfloat16 peak, recomputation not counted), and peak memory. What does not fit is said
so. Needs torch and transformers alone (Liger's loss is used where it is installed). First the
packed attention of the device is held against each sequence alone, so that no figure is of a wrong
computation. The result is printed as JSON and kept under the device's name; the smoke's is not
kept.

**No GPU was at hand when this was written: only the smoke has run.**
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from bench._machine import write
from distiller import optim, packing
from distiller.modelling import Student

WHOLE = {
    "vocab_size": 151_936, "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
    "num_attention_heads": 12, "num_key_value_heads": 2, "max_position_embeddings": 32_768,
    "tie_word_embeddings": True,
}  # fmt: skip
TINY = WHOLE | {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4,
}  # fmt: skip
STEP_TOKENS = 65_536  # of an optimizer step
ISOLATION = 0.05  # of the largest logit, in bfloat16; a leak shows as 0.3 and more


def student_of(shape: dict[str, Any], device: str, *, checkpointing: bool) -> Student:
    torch.manual_seed(0)
    with torch.device(device):
        model = Qwen2ForCausalLM(Qwen2Config(**shape))
    model.config.use_cache = False
    model.set_attn_implementation(packing.ATTENTION)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return Student(model, bfloat16=True).train()


def require_isolation(shape: dict[str, Any], device: str) -> float:
    """The difference that packing makes, as a share of the largest logit."""
    student = student_of(shape | {"num_hidden_layers": 2}, device, checkpointing=False).eval()
    sequences = [
        torch.randint(0, shape["vocab_size"], (length,)).tolist() for length in (700, 300, 129, 40)
    ]
    with torch.autocast(torch.device(device).type, torch.bfloat16):
        difference = packing.packed_logits_difference(student.model, sequences)
        with torch.no_grad():
            student.model.set_attn_implementation("sdpa")
            ids = torch.tensor([sequences[0]], device=device)
            largest = float(student.model(input_ids=ids).logits.abs().max())
    share = difference / largest
    if not share < ISOLATION:
        sys.exit(
            f"packing: logits differ by {share:.3f} of the largest; sequences are not isolated."
        )
    return share


def measure(
    shape: dict[str, Any], device: str, length: int, *, checkpointing: bool, tokens: int, steps: int
) -> dict[str, Any]:
    """Steps after two that warm up; one sequence, or as many as fill 16,384 tokens, at a time."""
    cuda = torch.device(device).type == "cuda"
    student = student_of(shape, device, checkpointing=checkpointing)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-5, betas=optim.BETAS, fused=True)
    at_once = max(1, min(tokens, 16_384) // length)
    count = max(1, tokens // (at_once * length))
    packs = [
        packing.pack([(sequence(shape, length), length // 8)] * at_once, device)
        for _ in range(count)
    ]
    supervised = sum(int((packed.targets != packing.IGNORED).sum()) for packed in packs)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    losses: list[float] = []
    for step in range(2 + steps):
        if step == 2:
            started = clock(device)
        optimizer.zero_grad()
        total = torch.zeros((), device=device)
        for packed in packs:
            loss = student(packed)
            (loss / supervised).backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        losses.append(float(total) / supervised)
    seconds = (clock(device) - started) / steps
    lengths = [length - 1] * (at_once * count)
    flops = optim.step_flops(
        student.model.config, student.multiplied_parameters(), lengths, frozen=False
    )
    peak = optim.peak_flops(device)
    return {
        "tokens_per_second": round(sum(lengths) / seconds),
        "supervised_tokens_per_second": round(supervised / seconds),
        "mfu": None if peak is None else round(flops / seconds / peak, 4),
        "model_tflops_per_second": round(flops / seconds / 1e12, 3),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if cuda else None,
        "loss_first_last": [round(losses[0], 4), round(losses[-1], 4)],
    }


def sequence(shape: dict[str, Any], length: int) -> Sequence[int]:
    ids: list[int] = torch.randint(0, shape["vocab_size"], (length,)).tolist()
    return ids


def clock(device: str) -> float:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def measured(
    shape: dict[str, Any], device: str, length: int, *, checkpointing: bool, tokens: int, steps: int
) -> dict[str, Any] | str:
    """:func:`measure`, or that it does not fit into the device's memory."""
    try:
        return measure(
            shape, device, length, checkpointing=checkpointing, tokens=tokens, steps=steps
        )
    except torch.OutOfMemoryError:
        pass  # the error holds the model; only after it is there memory to give back
    if device == "cuda":
        torch.cuda.empty_cache()
    return "does not fit"


def run(*, smoke: bool, steps: int) -> dict[str, Any]:
    """All measurements on this machine's device, with its name."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    shape = TINY if smoke else WHOLE
    lengths = (128, 256) if smoke else (4096, 16_384, 32_768)
    tokens = 512 if smoke else STEP_TOKENS
    peak = optim.peak_flops(device)
    name = torch.cuda.get_device_name() if device == "cuda" else f"cpu ({platform.machine()})"
    result: dict[str, Any] = {
        "device": name,
        "peak_tflops_per_second": None if peak is None else peak / 1e12,
        "loss": "liger" if device == "cuda" and find_spec("liger_kernel") else "chunked",
        "step_tokens": tokens,
        "packing_difference": require_isolation(shape, device),
        "runs": {},
    }  # fmt: skip
    for length in lengths:
        for checkpointing in (False, True):
            label = f"{length}{' checkpointed' if checkpointing else ''}"
            found = measured(
                shape, device, length, checkpointing=checkpointing, tokens=tokens, steps=steps
            )
            result["runs"][label] = found
            print(label, found, file=sys.stderr, flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a tiny shape; keeps nothing")
    parser.add_argument("--steps", type=int, default=4)
    given = parser.parse_args()
    if not (given.smoke or torch.cuda.is_available()):
        print("sft_gpu: no GPU here, nothing measured (--smoke tries it on the CPU).")
        return
    result = run(smoke=given.smoke, steps=given.steps)
    print(json.dumps(result, indent=1))
    if not given.smoke:
        slug = re.sub(r"\W+", "_", result["device"]).strip("_").lower()
        write(f"sft_gpu_{slug}", result, packages=["torch", "transformers"])


if __name__ == "__main__":
    main()

"""The optimizer, its schedule, and how much of the hardware's arithmetic a step used."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from distiller.recipe import Training

BETAS = (0.9, 0.95)
# Dense bfloat16 peaks in FLOP/s, from NVIDIA's data sheets (without sparsity). The first key that
# the device's name contains counts; a device that is not here has no MFU.
PEAK_FLOPS = {
    "GH200": 989e12,
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10G": 125e12,
    "RTX 4090": 165e12,
}


def adamw(parameters: Sequence[tuple[str, Any]], training: Training) -> torch.optim.AdamW:
    """AdamW with weight decay for matrices, and none for norms and biases."""
    matrices = [parameter for _, parameter in parameters if parameter.ndim >= 2]
    vectors = [parameter for _, parameter in parameters if parameter.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": training.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=training.learning_rate,
        betas=BETAS,
        fused=True,
    )


def learning_rate_share(step: int, steps: int, warmup_ratio: float, minimum: float = 0.0) -> float:
    """Share of the peak rate at ``step`` (from 0): linear warm-up, then a cosine to ``minimum``."""
    warm = math.ceil(warmup_ratio * steps)
    if step < warm:
        return (step + 1) / warm
    cosine = 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
    return minimum + (1 - minimum) * cosine


def step_flops(config: Any, parameters: int, lengths: Sequence[int], *, frozen: bool) -> float:
    """FLOPs that a forward and backward pass over whole sequences needs (no recomputation).

    ``parameters`` are those of matrix products (embedding look-ups cost none). Two FLOPs per
    parameter and token forward and four backward, two where the weights are frozen; attention
    2 · 2 · heads · head width per pair of tokens and layer forward and twice that backward, causal
    pairs counted once (Chowdhery et al. 2022, arXiv 2204.02311, appendix B, which counts both
    halves).
    """
    config = config.get_text_config()
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    pairs = sum(length * (length + 1) / 2 for length in lengths)
    attention: float = 12 * config.num_hidden_layers * heads * width * pairs
    return (4 if frozen else 6) * parameters * float(sum(lengths)) + attention


def peak_flops(device: torch.device | str) -> float | None:
    """The device's bfloat16 peak in FLOP/s; None where it is not known."""
    if torch.device(device).type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for key, peak in PEAK_FLOPS.items() if key in name), None)

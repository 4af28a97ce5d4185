"""Cross-entropy over a large vocabulary without ever holding all logits.

Logits of 32,768 tokens and 151,936 words take 20 GB in float32, and their gradient as much again.
Here a chunk of tokens is taken at a time, and its gradients are made at once, while its logits are
there: nothing is computed twice and nothing of the vocabulary's width outlives its chunk. (The idea
is Liger's fused linear cross-entropy, Hsu et al. 2024, arXiv 2410.10989, which is used on a GPU
where it is installed.)
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch.autograd.function import once_differentiable

CHUNK_BYTES = 64 << 20  # of float32 logits on a CPU; two buffers of this size exist at a time
GPU_CHUNK_BYTES = 512 << 20


def summed_cross_entropy(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Sum over tokens of -log softmax(hidden · weightᵀ)[target], in nats, as a float32 scalar.

    ``hidden`` is (N, C), ``weight`` (V, C) and ``targets`` (N,) in 0 … V-1. N may be 0.
    """
    if hidden.is_cuda and importlib.util.find_spec("liger_kernel") and len(targets):
        return _liger(hidden, weight, targets)
    budget = GPU_CHUNK_BYTES if hidden.is_cuda else CHUNK_BYTES
    chunk = max(1, budget // (4 * weight.shape[0]))
    result: torch.Tensor = _Chunked.apply(hidden, weight, targets, chunk)  # type: ignore[no-untyped-call]
    return result


class _Chunked(torch.autograd.Function):
    """Forward makes loss and gradients chunk by chunk; backward only scales the gradients."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, chunk: int
    ) -> torch.Tensor:
        for_hidden, for_weight = ctx.needs_input_grad[:2]
        matrix = weight.to(hidden.dtype)
        hidden_grad = torch.empty_like(hidden) if for_hidden else None
        weight_grad = torch.zeros_like(weight, dtype=torch.float32) if for_weight else None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(targets), chunk):
            rows, wanted = hidden[start : start + chunk], targets[start : start + chunk, None]
            scores = torch.log_softmax(rows @ matrix.T, dim=-1, dtype=torch.float32)  # (n, V)
            total -= scores.gather(1, wanted).sum()
            if hidden_grad is None and weight_grad is None:
                continue
            scores.exp_().scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=scores.dtype))
            error = scores.to(hidden.dtype)  # gradient of the loss by the logits
            if hidden_grad is not None:
                torch.mm(error, matrix, out=hidden_grad[start : start + chunk])
            if weight_grad is not None:
                if error.dtype == weight_grad.dtype:
                    weight_grad.addmm_(error.T, rows)
                else:
                    weight_grad += error.T @ rows
        ctx.save_for_backward(hidden_grad, weight_grad)
        ctx.weight_dtype = weight.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden_grad, weight_grad = ctx.saved_tensors
        if hidden_grad is not None:
            hidden_grad = hidden_grad * scale.to(hidden_grad.dtype)
        if weight_grad is not None:
            weight_grad = weight_grad.mul_(scale).to(ctx.weight_dtype)
        return hidden_grad, weight_grad, None, None


def _liger(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    loss: torch.Tensor = liger_fused_linear_cross_entropy(
        hidden, weight.to(hidden.dtype), targets, reduction="sum"
    )
    return loss.float()

"""The chunked loss is the plain one, in value and gradients, and holds little at a time."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distiller import losses


def both(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor
) -> list[tuple[torch.Tensor, ...]]:
    results = []
    for function in (
        losses.summed_cross_entropy,
        lambda h, w, t: torch.nn.functional.cross_entropy((h @ w.T).float(), t, reduction="sum"),
    ):
        leaves = [each.clone().requires_grad_() for each in (hidden, weight)]
        loss = function(*leaves, targets) / max(len(targets), 1)
        results.append((loss.detach(), *torch.autograd.grad(loss, leaves)))
    return results


@given(st.integers(0, 40), st.integers(2, 60), st.integers(1, 9), st.integers(0, 99))
@settings(deadline=None)
def test_loss_and_gradients_are_the_plain_ones(
    tokens: int, words: int, chunk: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(tokens, 16, generator=generator)
    weight = torch.randn(words, 16, generator=generator)
    targets = torch.randint(0, words, (tokens,), generator=generator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses, "CHUNK_BYTES", 4 * words * chunk)
        ours, plain = both(hidden, weight, targets)
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_improbable_targets_have_a_finite_loss() -> None:
    """Where softmax underflows to 0, -log of it would be infinite."""
    hidden = torch.tensor([[1000.0]])
    loss = losses.summed_cross_entropy(hidden, torch.tensor([[1.0], [-1.0]]), torch.tensor([1]))
    assert loss == 2000


def test_frozen_words_get_no_gradient() -> None:
    hidden = torch.randn(3, 4, requires_grad=True)
    weight = torch.randn(5, 4)
    losses.summed_cross_entropy(hidden, weight, torch.tensor([0, 1, 2])).backward()
    assert hidden.grad is not None
    assert weight.grad is None


PROGRAM = r"""
import re, torch
from distiller import losses
tokens, words, width = 4096, 50_000, 32
torch.set_num_threads(1)
hidden = torch.randn(tokens, width, requires_grad=True)
weight = torch.randn(words, width, requires_grad=True)
targets = torch.randint(0, words, (tokens,))
def peak():  # in kB; getrusage's would be the parent's where that one was larger
    return int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1])
before = peak()
losses.summed_cross_entropy(hidden, weight, targets).backward()
print(peak() - before)
"""


def test_all_logits_never_exist_at_once() -> None:
    """819 MB of logits, and as much of gradients, pass through two buffers of 64 MiB."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) / 1024 < 260  # MiB

"""Drawing tokens: temperature, top-p, and randomness that belongs to one completion alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def _mix(state: np.ndarray[Any, np.dtype[np.uint64]]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """SplitMix64's output function (Steele, Lea and Flood 2014, figure 17)."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def uniforms(
    seeds: np.ndarray[Any, np.dtype[np.int64]], steps: np.ndarray[Any, np.dtype[np.int64]]
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """One number in [0, 1) per row, a function of (seed, step) and of nothing else.

    A counter-based generator, SplitMix64 started at the mixed seed, so a completion's randomness
    is the same in any batch, on any device and after any interruption.
    ``seeds`` and ``steps``: (B,).
    """
    with np.errstate(over="ignore"):
        start = _mix(seeds.astype(np.uint64) + _GAMMA)
        bits = _mix(start + (steps.astype(np.uint64) + np.uint64(1)) * _GAMMA)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def draw_tokens(logits: Tensor, *, temperature: float, top_p: float, uniform: Tensor) -> Tensor:
    """Token ids (B,) drawn from ``logits`` (B, V) by inverting each row's distribution function.

    Temperature first, then the smallest set of most likely tokens whose probability reaches
    ``top_p`` (Holtzman et al. 2020, §3.1). Temperature 0 takes the most likely token. ``uniform``
    (B,) in [0, 1) picks the token; the distribution function runs in order of token id, so that
    two tokens of almost equal probability do not change places with the batch's rounding.
    """
    import torch

    if temperature == 0:
        return logits.argmax(dim=-1)
    probabilities = torch.softmax(logits.float() / temperature, dim=-1)
    if top_p < 1:
        ranked, order = probabilities.sort(dim=-1, descending=True)
        before = ranked.cumsum(dim=-1) - ranked
        ranked = ranked.masked_fill(before >= top_p, 0.0)
        probabilities = torch.zeros_like(probabilities).scatter_(-1, order, ranked)
    cumulative = probabilities.double().cumsum(dim=-1)
    target = uniform.unsqueeze(-1) * cumulative[:, -1:]
    # right=True: the first token whose cumulative probability exceeds the target, so that one of
    # probability 0 is never taken.
    chosen = torch.searchsorted(cumulative, target, right=True).squeeze(-1)
    return chosen.clamp_(max=logits.shape[-1] - 1)

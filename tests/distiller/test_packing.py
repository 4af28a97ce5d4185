"""Packed sequences are isolated, at every length, in every architecture that students have."""

from __future__ import annotations

import inspect
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import varlen
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModelForCausalLM, AutoTokenizer

from distiller import packing
from tests.distiller.samples import make_tiny

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=8)


@given(st.lists(st.integers(1, 99), min_size=1, max_size=40), st.integers(1, 200))
def test_bins_hold_everything_once_and_few_are_needed(lengths: list[int], capacity: int) -> None:
    found = packing.bins(lengths, capacity)
    assert sorted(index for chosen in found for index in chosen) == list(range(len(lengths)))
    loads = [sum(lengths[index] for index in chosen) for chosen in found]
    assert all(
        load <= capacity or len(chosen) == 1 for load, chosen in zip(loads, found, strict=True)
    )
    halves = sum(load <= capacity / 2 for load in loads)
    assert halves <= 1  # two half-empty bins would have been one
    assert found == packing.bins(lengths, capacity)


@given(LENGTHS, st.sampled_from([(4, 4), (4, 2), (6, 1)]))
@settings(deadline=None, max_examples=30)
def test_attention_is_the_block_diagonal_one(lengths: list[int], heads: tuple[int, int]) -> None:
    """Oracle: one attention over everything under a block-diagonal causal mask; gradients too."""
    lengths = sorted(lengths)
    total = sum(lengths)
    generator = torch.Generator().manual_seed(total)
    q, k, v = (
        torch.randn(1, count, total, 8, generator=generator, requires_grad=True)
        for count in (heads[0], heads[1], heads[1])
    )
    out, _ = packing.attend(None, q, k, v, None, layout=packing.layout(lengths, "cpu"))
    owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    mask = (owner[:, None] == owner[None]) & torch.ones(total, total, dtype=torch.bool).tril()
    repeats = heads[0] // heads[1]
    wanted = scaled_dot_product_attention(
        q, k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1), attn_mask=mask
    ).transpose(1, 2)
    torch.testing.assert_close(out, wanted, rtol=1e-4, atol=1e-5)
    weight = torch.randn(out.shape, generator=generator)
    ours = torch.autograd.grad((out * weight).sum(), (q, k, v), retain_graph=True)
    oracle = torch.autograd.grad((wanted * weight).sum(), (q, k, v))
    for one, other in zip(ours, oracle, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_what_is_packed_beside_changes_no_bit_of_attention() -> None:
    lengths = [200, 300]
    q, k, v = (torch.randn(1, 2, 500, 8) for _ in range(3))
    layout = packing.layout(lengths, "cpu")
    before, _ = packing.attend(None, q, k, v, None, layout=layout)
    for states in (q, k, v):
        states[:, :, :200] = 1e4 * torch.randn(1, 2, 200, 8)
    after, _ = packing.attend(None, q, k, v, None, layout=layout)
    assert torch.equal(before[:, 200:], after[:, 200:])
    assert not torch.equal(before[:, :200], after[:, :200])


@pytest.mark.parametrize("heads", [(4, 4), (6, 2)])
def test_the_gpus_kernel_is_given_the_same_sequences(
    heads: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's own signature with its documented meaning in place of the kernel, which needs a GPU.

    Both ways through :func:`packing.attend` must then agree, in values and in gradients.
    """
    documented = inspect.signature(varlen.varlen_attn)

    def reference(*given: Any, **named: Any) -> torch.Tensor:
        call = documented.bind(*given, **named)
        call.apply_defaults()
        q, k, v = (call.arguments[name] for name in ("query", "key", "value"))  # (T, heads, D)
        starts = call.arguments["cu_seq_q"]
        assert call.arguments["window_size"] == (-1, 0)  # causal
        assert call.arguments["enable_gqa"] == (q.shape[1] != k.shape[1])
        assert starts.dtype == torch.int32
        assert torch.equal(starts, call.arguments["cu_seq_k"])
        lengths = starts.diff()
        assert call.arguments["max_q"] == call.arguments["max_k"] == int(lengths.max())
        assert int(starts[-1]) == len(q) == len(k) == len(v)
        parts = [
            scaled_dot_product_attention(
                *(each[start:end].transpose(0, 1) for each in (q, k, v)),
                is_causal=True, scale=call.arguments["scale"], enable_gqa=True,
            ).transpose(0, 1)
            for start, end in pairwise(starts.tolist())
        ]  # fmt: skip
        return torch.cat(parts)

    lengths = [3, 40, 41, 200]
    q, k, v = (
        torch.randn(1, count, sum(lengths), 8, requires_grad=True)
        for count in (heads[0], heads[1], heads[1])
    )
    found = []
    for flash in (False, True):
        monkeypatch.setattr(packing, "_has_flash_kernel", lambda query, flash=flash: flash)
        monkeypatch.setattr(varlen, "varlen_attn", reference)
        out, _ = packing.attend(
            None, q, k, v, None, layout=packing.layout(lengths, "cpu"), scaling=0.3
        )
        weight = torch.arange(out.numel(), dtype=torch.float32).reshape(out.shape).cos()
        found.append((out, *torch.autograd.grad((out * weight).sum(), (q, k, v))))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama"])
def test_packed_logits_are_those_of_each_sequence_alone(kind: str, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(make_tiny(kind, tmp_path / "model"))
    generator = torch.Generator().manual_seed(0)
    sequences = [
        torch.randint(0, 200, (length,), generator=generator).tolist()
        for length in (2, 17, 17, 40, 180, 240)
    ]
    assert packing.packed_logits_difference(model, sequences) < 1e-5


def test_a_model_that_is_not_isolated_is_found_out(
    tiny_qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check can fail: with one layout over everything, sequences see each other."""
    model = AutoModelForCausalLM.from_pretrained(tiny_qwen)
    leaking = packing.layout
    monkeypatch.setattr(packing, "layout", lambda lengths, device: leaking([sum(lengths)], device))
    assert packing.packed_logits_difference(model, [[1, 2, 3, 4]] * 3) > 1e-4


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("kind", "name"),
    [("qwen2", "qwen2.5"), ("qwen3", "deepseek-r1-distill-qwen"), ("llama", "qwen2.5")],
)
def test_real_tokenizers_texts_pack(
    kind: str, name: str, shared_tokenizer: Any, tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(shared_tokenizer(name))
    model = AutoModelForCausalLM.from_pretrained(
        make_tiny(kind, tmp_path / "model", vocabulary=len(tokenizer))
    )
    texts = ["<think>\nTwo and two.\n</think>\n\n\\boxed{4}" * n for n in (1, 2, 5)]
    sequences = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    assert packing.packed_logits_difference(model, sequences) < 1e-5

"""Packing: whole sequences laid one after another, none of which sees another.

A micro-batch is one row of tokens (1, T) whose positions start at 0 with every sequence. Isolation
is not a mask: attention is computed per sequence. On a GPU that is the variable-length flash kernel
which torch itself has (torch.nn.attention.varlen: bfloat16 and float16, Ampere and later); for
anything else sequences of like length go through scaled-dot-product attention together, the shorter
ones padded on the right, where causal attention never looks. So neither memory nor time is spent on
pairs of tokens of different sequences (a block-diagonal mask of 32,768 tokens alone would take
1 GiB). Flex attention does the same by block masks, but only compiled, for every new set of
lengths a mask, and not for training on a CPU: it would be a third way without a case of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from distiller.errors import InputError

ATTENTION = "retort_packed"  # name under which models find :func:`attend`
IGNORED = -100  # target of a token that carries no loss
# Sequences share an attention call while padding adds at most this much work, or all are so short
# that a call costs more than the padding.
PADDED_WORK = 1.3
SHORT_TOKENS = 128
AMPERE = (8, 0)  # compute capability from which torch's flash kernels run


@dataclass(frozen=True, slots=True)
class Group:
    """Sequences of like length that lie side by side: ``tokens`` from ``start`` on.

    ``padded`` (sequences, longest) holds where each padded token is taken from, counted from
    ``start``, and ``kept`` (tokens,) which padded tokens are real; None where all lengths agree.
    """

    start: int
    tokens: int
    sequences: int
    padded: torch.Tensor | None = None
    kept: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the sequences of a micro-batch lie. ``starts`` (sequences + 1,) int32, from 0 to T."""

    groups: tuple[Group, ...]
    starts: torch.Tensor
    longest: int


@dataclass(frozen=True, slots=True)
class Packed:
    """A micro-batch.

    ``input_ids`` and ``position_ids`` are (1, T), ``targets`` (T,): the token to be predicted, or
    :data:`IGNORED`.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    targets: torch.Tensor
    layout: Layout

    def silenced(self) -> Packed:
        """The same tokens without any loss."""
        silent = torch.full_like(self.targets, IGNORED)
        return Packed(self.input_ids, self.position_ids, silent, self.layout)


def bins(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices of ``lengths`` in bins of at most ``capacity`` tokens; longer ones lie alone.

    First-fit decreasing (Johnson 1974: at most 11/9 of the fewest bins, plus one). The order of
    equal lengths is theirs, so the same lengths give the same bins.
    """
    filled: list[int] = []
    chosen: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        length = lengths[index]
        place = next((at for at, used in enumerate(filled) if used + length <= capacity), None)
        if place is None:
            filled.append(length)
            chosen.append([index])
        else:
            filled[place] += length
            chosen[place].append(index)
    return chosen


def pack(sequences: Sequence[tuple[Sequence[int], int]], device: torch.device | str) -> Packed:
    """Lay (token ids, prompt tokens) side by side, the shortest first.

    A sequence's last token is only predicted, so it is no input. Raises InputError for one of
    fewer than two tokens.
    """
    ids: list[torch.Tensor] = []
    targets: list[torch.Tensor] = []
    for tokens, prompt_tokens in sorted(sequences, key=lambda sequence: len(sequence[0])):
        if len(tokens) < 2:
            raise InputError("corpus: a sequence has fewer than two tokens; build it again.")
        whole = torch.as_tensor(tokens, dtype=torch.long)
        target = whole[1:].clone()
        target[: max(prompt_tokens - 1, 0)] = IGNORED
        ids.append(whole[:-1])
        targets.append(target)
    lengths = [len(each) for each in ids]
    return Packed(
        torch.cat(ids)[None].to(device),
        torch.cat([torch.arange(length) for length in lengths])[None].to(device),
        torch.cat(targets).to(device),
        layout(lengths, device),
    )


def layout(lengths: Sequence[int], device: torch.device | str) -> Layout:
    """The layout of sequences of these lengths, in this order."""
    starts = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32).to(device)
    return Layout(tuple(_groups(lengths, device)), starts, max(lengths))


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    layout: Layout,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention inside every sequence of ``layout``.

    ``query`` is (1, heads, T, D), ``key`` and ``value`` (1, key heads, T, D); the result is
    (1, T, heads, D). Signature: transformers' AttentionInterface.
    """
    kind = query.device.type
    if torch.is_autocast_enabled(kind):  # which casts for attention too, but only inside its call
        query, key, value = (
            each.to(torch.get_autocast_dtype(kind)) for each in (query, key, value)
        )
    if _has_flash_kernel(query) and not dropout:
        return _attend_variable_length(query, key, value, layout, scaling), None
    repeats = query.shape[1] // key.shape[1]
    parts = []
    for group in layout.groups:
        q, k, v = (_batched(each, group) for each in (query, key, value))
        if repeats > 1:  # the CPU's kernel knows no grouped heads
            k, v = (each.repeat_interleave(repeats, dim=1) for each in (k, v))
        out = scaled_dot_product_attention(
            q, k, v, dropout_p=dropout, scale=scaling, is_causal=True
        )
        rows = out.transpose(1, 2).flatten(0, 1)  # (padded tokens, heads, D)
        parts.append(rows if group.kept is None else rows.index_select(0, group.kept))
    return torch.cat(parts)[None], None


def _has_flash_kernel(query: torch.Tensor) -> bool:
    return (
        query.is_cuda
        and query.dtype in (torch.bfloat16, torch.float16)
        and torch.cuda.get_device_capability(query.device) >= AMPERE
    )


AttentionInterface.register(ATTENTION, attend)  # no mask of that name: none is made


def packed_logits_difference(model: Any, sequences: Sequence[Sequence[int]]) -> float:
    """The largest difference between logits of packed sequences and of each one alone.

    ``model`` is a causal language model of transformers; its attention is the packed one
    afterwards. In float32 on a CPU an isolating model stays below 1e-3 of the largest logit.
    """
    packed = pack([(ids, 0) for ids in sequences], model.device)
    ordered = sorted(sequences, key=len)
    with torch.no_grad():
        model.set_attn_implementation("sdpa")
        alone = [
            model(input_ids=torch.as_tensor([list(ids[:-1])], device=model.device)).logits[0]
            for ids in ordered
        ]
        model.set_attn_implementation(ATTENTION)
        together = model(
            input_ids=packed.input_ids,
            position_ids=packed.position_ids,
            layout=packed.layout,
            use_cache=False,
        ).logits[0]
    return float((together - torch.cat(alone)).abs().max())


def _groups(lengths: Sequence[int], device: torch.device | str) -> Iterator[Group]:
    start = first = 0
    while first < len(lengths):
        end = first + 1
        while end < len(lengths) and _worth_padding(lengths[first : end + 1]):
            end += 1
        yield _group(lengths[first:end], start, device)
        start += sum(lengths[first:end])
        first = end


def _worth_padding(lengths: Sequence[int]) -> bool:
    longest = max(lengths)
    if longest <= SHORT_TOKENS:
        return True
    return len(lengths) * longest**2 <= PADDED_WORK * sum(length**2 for length in lengths)


def _group(lengths: Sequence[int], start: int, device: torch.device | str) -> Group:
    longest, tokens = max(lengths), sum(lengths)
    if len(lengths) * longest == tokens:
        return Group(start, tokens, len(lengths))
    count = torch.tensor(lengths)[:, None]  # (sequences, 1)
    offsets = count.cumsum(0) - count
    columns = torch.arange(longest)[None]
    real = columns < count
    padded = (offsets + torch.minimum(columns, count - 1)).flatten()
    kept = real.flatten().nonzero()[:, 0]
    return Group(start, tokens, len(lengths), padded.to(device), kept.to(device))


def _batched(states: torch.Tensor, group: Group) -> torch.Tensor:
    """(1, heads, T, D) -> (sequences, heads, longest, D) of one group."""
    rows = states[0, :, group.start : group.start + group.tokens]  # (heads, tokens, D)
    if group.padded is not None:
        rows = rows.index_select(1, group.padded)
    return rows.view(len(rows), group.sequences, -1, rows.shape[-1]).transpose(0, 1)


def _attend_variable_length(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: Layout,
    scaling: float | None,
) -> torch.Tensor:
    """The flash kernel for sequences of any length; (1, T, heads, D)."""
    from torch.nn.attention.varlen import varlen_attn

    kernel: Callable[..., Any] = varlen_attn
    q, k, v = (each[0].transpose(0, 1).contiguous() for each in (query, key, value))
    out = kernel(
        q, k, v, layout.starts, layout.starts, layout.longest, layout.longest,
        scale=scaling, window_size=(-1, 0), enable_gqa=q.shape[1] != k.shape[1],
    )  # fmt: skip
    return out[None]  # type: ignore[no-any-return]

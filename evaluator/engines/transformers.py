"""Engine ``transformers``: a checkpoint in this process, with continuous batching. No server.

A batch holds as many completions as ``batch_size``; when enough of them have ended, they leave and
waiting ones are prefilled into their places. Rows are right-aligned: all of them write their keys
and values to the same column, and what stands left of a row's own length is masked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import transformers
from transformers.cache_utils import Cache, DynamicLayer

from evaluator.engines.base import Request
from evaluator.engines.prompting import Prompter, first_stop
from evaluator.engines.sampling import draw_tokens, uniforms
from evaluator.errors import EngineError, InputError
from evaluator.protocol import Protocol, Sampling
from evaluator.records import Completion

if TYPE_CHECKING:
    from torch import Tensor

_BATCH_SIZE = 256  # most rows at a time
_CACHE_BYTES = {"cpu": 2 << 30, "cuda": 24 << 30}  # what their keys and values may take
_DROP_SHARE = 4  # ended rows leave when they are a quarter of the batch


class KeyValueLayer(DynamicLayer):
    """A layer's keys and values, (B, H, T, D), in storage that grows by doubling.

    The class that it replaces copies the whole cache for every token.
    """

    keys: Tensor
    values: Tensor

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append columns and return all of them."""
        end = key_states.shape[-2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._stored = (key_states, value_states)
        else:
            start = self.keys.shape[-2]
            end += start
            if end > self._stored[0].shape[-2]:
                self._stored = (_widen(self.keys, end * 2), _widen(self.values, end * 2))
            self._stored[0][:, :, start:end] = key_states
            self._stored[1][:, :, start:end] = value_states
        self.keys = self._stored[0][:, :, :end]
        self.values = self._stored[1][:, :, :end]
        return self.keys, self.values

    def replace(self, keys: Tensor, values: Tensor) -> None:
        """Hold these columns from now on."""
        self._stored = (keys, values)
        self.keys, self.values = keys, values


def _widen(states: Tensor, columns: int) -> Tensor:
    """``states`` (B, H, T, D) at the start of new storage for ``columns`` columns."""
    batch, heads, filled, width = states.shape
    wide = states.new_empty((batch, heads, columns, width))
    wide[:, :, :filled] = states
    return wide


@dataclass(slots=True)
class _Row:
    """One completion under way."""

    request: Request
    prompt: list[int]
    limit: int  # most tokens to generate
    ids: list[int] = field(default_factory=list)
    ended: bool = False


class TransformersEngine:
    """Generates with transformers on the CPU (float32) or a GPU (bfloat16)."""

    OPTIONS: ClassVar[tuple[str, ...]] = (
        "model", "device", "dtype", "batch_size", "context_tokens", "rope"
    )  # fmt: skip

    def __init__(
        self,
        model: str | Path,
        *,
        device: str | None = None,
        dtype: str | None = None,
        batch_size: int | None = None,
        context_tokens: int | None = None,
        rope: Mapping[str, Any] | None = None,
    ) -> None:
        transformers.utils.logging.disable_progress_bar()
        folder = Path(model)
        self._prompter = Prompter(folder, rope)
        self._context = self._prompter.context_tokens(context_tokens)
        kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
        if kind.split(":")[0] not in _CACHE_BYTES:
            raise InputError(f"device: {kind!r} is not one of cpu, cuda.")
        self._device = torch.device(kind)
        dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
        name = dtype or ("float32" if self._device.type == "cpu" else "bfloat16")
        if name not in dtypes:
            raise InputError(f"dtype: {name!r} is not one of {', '.join(dtypes)}.")
        if batch_size is not None and batch_size < 1:
            raise InputError("batch_size: must be at least 1.")
        self._dtype_name = name
        self._batch_size = batch_size
        try:
            self._model: Any = transformers.AutoModelForCausalLM.from_pretrained(
                folder,
                config=self._prompter.config,
                local_files_only=True,
                dtype=dtypes[name],
                attn_implementation="sdpa",
            )
        except (OSError, ValueError) as error:
            raise InputError(f"model: {folder} cannot be loaded ({error}).") from error
        self._model.to(self._device).eval()
        self._ends = frozenset(self._prompter.end_ids)

    def describe(self) -> dict[str, Any]:
        """See :meth:`evaluator.engines.base.Engine.describe`."""
        on_gpu = self._device.type == "cuda"
        return {
            "name": "transformers",
            "versions": {"transformers": transformers.__version__, "torch": torch.__version__},
            "dtype": self._dtype_name,
            "device": torch.cuda.get_device_name(self._device) if on_gpu else "cpu",
            "context_tokens": self._context,
            "overrides": self._prompter.overrides,
            "chat_template": self._prompter.template_hash,
        }

    def render(self, problem: str, *, prompt: str, protocol: Protocol) -> str:
        """See :meth:`evaluator.engines.base.Engine.render`."""
        return self._prompter.render(problem, prompt=prompt, protocol=protocol)

    def close(self) -> None:
        """See :meth:`evaluator.engines.base.Engine.close`."""
        self._model = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
        """See :meth:`evaluator.engines.base.Engine.generate`."""
        rows = []
        for request in requests:
            prompt = self._prompter.encode(request, context=self._context)
            limit = min(sampling.max_tokens, self._context - len(prompt))
            rows.append(_Row(request, prompt, limit))
        # Similar lengths together waste little padding; equal prompts together are read once.
        rows.sort(key=lambda row: (len(row.prompt), row.prompt))
        return self._run(deque(rows), sampling)

    def _rows_at_once(self, rows: deque[_Row]) -> int:
        """As many rows as the cache has room for at their longest."""
        if self._batch_size is not None:
            return self._batch_size
        config = self._model.config.get_text_config()
        heads = config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // heads
        shared = getattr(config, "num_key_value_heads", None) or heads
        token_bytes = 2 * config.num_hidden_layers * shared * width * self._model.dtype.itemsize
        longest = max((len(row.prompt) + row.limit for row in rows), default=1)
        room = _CACHE_BYTES[self._device.type] // (token_bytes * longest)
        return max(1, min(_BATCH_SIZE, room))

    def _run(self, waiting: deque[_Row], sampling: Sampling) -> Iterator[Completion]:
        batch = _Batch(self._model, self._device, sampling, context=self._context)
        size = self._rows_at_once(waiting)
        while waiting or batch.rows:
            free = size - len(batch.rows)
            if waiting and free:
                changed = batch.admit([waiting.popleft() for _ in range(min(free, len(waiting)))])
            else:
                changed = batch.step()
            for row in changed:
                stopped = self._stopped(row, sampling)
                if stopped or len(row.ids) >= row.limit:
                    row.ended = True
                    yield self._prompter.complete(
                        row.request,
                        row.ids,
                        prompt_tokens=len(row.prompt),
                        stopped=stopped,
                        sampling=sampling,
                    )
            batch.drop_ended()

    def _stopped(self, row: _Row, sampling: Sampling) -> bool:
        """Whether the newest token ends the response or completes a stop string."""
        if row.ids[-1] in self._ends:
            return True
        if not sampling.stop:
            return False
        # Each token is at least one byte, so the tail holds any stop string just completed.
        tail = max(len(stop.encode()) for stop in sampling.stop) + 4
        text = self._prompter.tokenizer.decode(row.ids[-tail:], skip_special_tokens=False)
        return first_stop(text, sampling.stop) is not None


class _Batch:
    """Rows under way and their cache, whose T columns are shared by all rows, right-aligned."""

    def __init__(
        self, model: Any, device: torch.device, sampling: Sampling, *, context: int
    ) -> None:
        self.rows: list[_Row] = []
        self._model = model
        self._device = device
        self._sampling = sampling
        self._context = context
        self._cache: Any = None
        self._newest = torch.empty(0, dtype=torch.long, device=device)  # (B,) not yet in the cache
        self._lengths = torch.empty(0, dtype=torch.long, device=device)  # (B,) columns of each row

    @torch.inference_mode()
    def admit(self, new: list[_Row]) -> list[_Row]:
        """Read the prompts of ``new`` and draw their first tokens; returns ``new``."""
        prompts: list[list[int]] = []
        places: list[int] = []  # row -> its prompt; equal prompts stand side by side
        for row in new:
            if not prompts or row.prompt != prompts[-1]:
                prompts.append(row.prompt)
            places.append(len(prompts) - 1)
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(ids)) + ids for ids in prompts])  # (P, T)
        lengths = torch.tensor([len(ids) for ids in prompts], device=self._device)  # (P,)
        mask = _right_aligned(lengths, width)
        cache = Cache(layer_class_to_replicate=KeyValueLayer)
        logits = self._model(
            input_ids=ids.to(self._device),
            attention_mask=mask.long(),
            position_ids=(mask.long().cumsum(-1) - 1).clamp_(min=0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]  # (P, V)
        if not cache.layers or any(type(layer) is not KeyValueLayer for layer in cache.layers):
            raise EngineError(
                "engine transformers: it serves attention models only; use engine vllm."
            )
        index = torch.tensor(places, device=self._device)
        for layer in cache.layers:
            # What stands at padding may be NaN, which no mask undoes.
            keep = mask[:, None, :, None]
            keys = torch.where(keep, layer.keys, 0.0)[index]
            layer.replace(keys, torch.where(keep, layer.values, 0.0)[index])
        tokens = self._draw(logits[index], new)
        self._join(cache)
        self.rows += new
        self._newest = torch.cat([self._newest, tokens])
        self._lengths = torch.cat([self._lengths, lengths[index]])
        return new

    def _join(self, other: Cache) -> None:
        """Append the rows of ``other`` to the cache."""
        if self._cache is None:
            self._cache = other
            return
        for mine, theirs in zip(self._cache.layers, other.layers, strict=True):
            columns = max(mine.keys.shape[-2], theirs.keys.shape[-2])
            mine.replace(
                _stack([mine.keys, theirs.keys], columns),
                _stack([mine.values, theirs.values], columns),
            )

    @torch.inference_mode()
    def step(self) -> list[_Row]:
        """Draw one more token for every row; returns the rows that had not ended."""
        columns = self._cache.get_seq_length() + 1
        # The newest token stands after its row's columns; ended rows, still carried, may overrun.
        positions = self._lengths.clamp(max=self._context - 1)
        self._lengths = self._lengths + 1
        logits = self._model(
            input_ids=self._newest[:, None],
            attention_mask=_right_aligned(self._lengths, columns).long(),
            position_ids=positions[:, None],
            past_key_values=self._cache,
            use_cache=True,
        ).logits[:, -1]  # (B, V)
        self._newest = self._draw(logits, self.rows)
        return [row for row in self.rows if not row.ended]

    def _draw(self, logits: Tensor, rows: list[_Row]) -> Tensor:
        """Draw a token for each row and note it; ended rows draw too, for nothing."""
        seeds = np.array([row.request.seed for row in rows], dtype=np.int64)
        steps = np.array([len(row.ids) for row in rows], dtype=np.int64)
        tokens = draw_tokens(
            logits,
            temperature=self._sampling.temperature,
            top_p=self._sampling.top_p,
            uniform=torch.from_numpy(uniforms(seeds, steps)).to(self._device),
        )
        for row, token in zip(rows, tokens.tolist(), strict=True):
            if not row.ended:
                row.ids.append(token)
        return tokens

    @torch.inference_mode()
    def drop_ended(self) -> None:
        """Take ended rows out, and columns that no row needs any more, once it is worth a copy."""
        alive = [index for index, row in enumerate(self.rows) if not row.ended]
        if (len(self.rows) - len(alive)) * _DROP_SHARE < len(self.rows) or not self.rows:
            return
        self.rows = [self.rows[index] for index in alive]
        index = torch.tensor(alive, dtype=torch.long, device=self._device)
        self._newest, self._lengths = self._newest[index], self._lengths[index]
        if not self.rows:
            self._cache = None
            return
        columns = int(self._lengths.max())
        for layer in self._cache.layers:
            layer.replace(layer.keys[:, :, -columns:][index], layer.values[:, :, -columns:][index])


def _right_aligned(lengths: Tensor, columns: int) -> Tensor:
    """Mask (B, T): true in the last ``lengths[b]`` of ``columns`` columns."""
    return torch.arange(columns, device=lengths.device) >= (columns - lengths)[:, None]


def _stack(parts: list[Tensor], columns: int) -> Tensor:
    """Join (B_i, H, T_i, D) along B, each at the right edge of ``columns`` columns."""
    _, heads, _, width = parts[0].shape
    stacked = parts[0].new_zeros((sum(part.shape[0] for part in parts), heads, columns, width))
    row = 0
    for part in parts:
        stacked[row : row + part.shape[0], :, columns - part.shape[-2] :] = part
        row += part.shape[0]
    return stacked

"""How much device memory a training needs at its longest sequence: an estimate from shapes alone.

With P parameters, L layers, width h, attention width a (heads × head width), key-value width k,
feed-forward width f, vocabulary V, T tokens through the model at once, and b bytes per activation:

- weights, gradients and Adam's two moments in float32: 16 P bytes (Rajbhandari et al. 2020, ZeRO,
  section 3.1, counts the same 16 for mixed precision); in bfloat16 2 P more for the copy that the
  arithmetic uses. Under adapters the frozen weights take b P, and only the adapters 16 each.
- layer inputs that checkpointing keeps: L T h b; without it all that a layer keeps for its backward
  pass, L T b (8 h + 6 a + 4 k + 4 f). This is the count of Korthikanti et al. 2022
  (arXiv 2205.05198, section 4.1) made for gated feed-forward layers, grouped heads and attention
  that keeps no score matrix.
- the layer that is being computed backward: its own activations and their gradients,
  T b (11 h + 8 a + 4 k + 7 f);
- the loss (distiller/losses.py): the hidden states with their gradient, 2 T h b, the output layer's
  gradient, 4 V h, and two chunks of logits. It and a layer's backward pass do not coincide.

What it leaves out is the libraries' own memory (CUDA's context is about 0.5 GB) and fragmentation.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from distiller.recipe import Training

STATE_BYTES = 16  # per trained parameter
LOSS_CHUNK_BYTES = 2 * (512 << 20)  # two buffers of distiller.losses.GPU_CHUNK_BYTES
CPU_LOSS_CHUNK_BYTES = 2 * (64 << 20)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes on one device that holds the whole model. ``tokens`` go through it at once."""

    tokens: int
    state_bytes: int
    activation_bytes: int
    loss_bytes: int

    @property
    def total_bytes(self) -> int:
        """State, what layers keep, and the larger of the loss and a layer's backward pass."""
        return self.state_bytes + self.activation_bytes + self.loss_bytes

    @property
    def sentence(self) -> str:
        """The estimate in words."""
        state, kept, loss = map(
            size_words, (self.state_bytes, self.activation_bytes, self.loss_bytes)
        )
        return (
            f"about {size_words(self.total_bytes)} on one device with {self.tokens} tokens at "
            f"once: {state} for weights, gradients and optimizer (shared by all GPUs), "
            f"{kept} for activations, {loss} for the loss"
        )

    def to_json(self) -> dict[str, int]:
        """The figures, for preflight.json."""
        return asdict(self) | {"memory_bytes": self.total_bytes}


def estimate(
    config: Any, parameters: int, training: Training, longest: int, *, on_gpu: bool = True
) -> Estimate:
    """The memory of a training whose longest sequence has ``longest`` tokens.

    ``config`` is a causal language model's configuration, ``parameters`` its number of them.
    """
    shape = config.get_text_config()
    width, layers = shape.hidden_size, shape.num_hidden_layers
    inner = getattr(shape, "intermediate_size", None) or 4 * width
    heads = shape.num_attention_heads
    head = getattr(shape, "head_dim", None) or width // heads
    attention = heads * head
    keys = (getattr(shape, "num_key_value_heads", None) or heads) * head
    size = 2 if training.dtype == "bfloat16" else 4
    tokens = max(longest, min(training.micro_batch_tokens, training.batch_size * longest))
    kept = layers * tokens * width * size
    if not training.gradient_checkpointing:
        kept = layers * tokens * size * (8 * width + 6 * attention + 4 * keys + 4 * inner)
    backward = tokens * size * (11 * width + 8 * attention + 4 * keys + 7 * inner)
    loss = 2 * tokens * width * size
    loss += min(
        LOSS_CHUNK_BYTES if on_gpu else CPU_LOSS_CHUNK_BYTES, 2 * 4 * tokens * shape.vocab_size
    )
    if training.lora is None:
        state = parameters * (STATE_BYTES + (2 if size == 2 else 0))
        loss += 4 * shape.vocab_size * width
    else:
        # Every linear layer of width m × n gets rank × (m + n) parameters.
        ends = 4 * width + 2 * attention + 2 * keys + 3 * (width + inner)
        adapters = layers * training.lora.rank * ends
        state = parameters * size + adapters * STATE_BYTES
    return Estimate(tokens, state, kept + max(0, backward - loss), loss)


def size_words(count: int) -> str:
    """Bytes in words."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"

"""Files of a whole, tiny checkpoint, made without torch; and the same with one thing wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from distiller import headers

HIDDEN, WORDS, INNER = 8, 16, 16
CONFIG = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": HIDDEN,
    "intermediate_size": INNER, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "vocab_size": WORDS, "tie_word_embeddings": True,
    "max_position_embeddings": 256,
}  # fmt: skip
TEMPLATE = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"


def shapes() -> dict[str, tuple[int, ...]]:
    """The tensors that the config asks for."""
    layer = "model.layers.0"
    square = (HIDDEN, HIDDEN)
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (WORDS, HIDDEN),
        "model.norm.weight": (HIDDEN,),
        f"{layer}.input_layernorm.weight": (HIDDEN,),
        f"{layer}.post_attention_layernorm.weight": (HIDDEN,),
        f"{layer}.mlp.gate_proj.weight": (INNER, HIDDEN),
        f"{layer}.mlp.up_proj.weight": (INNER, HIDDEN),
        f"{layer}.mlp.down_proj.weight": (HIDDEN, INNER),
    }
    for part in "qkvo":
        found[f"{layer}.self_attn.{part}_proj.weight"] = square
        if part != "o":
            found[f"{layer}.self_attn.{part}_proj.bias"] = (HIDDEN,)
    return found


def weights(tensors: Mapping[str, tuple[int, ...]], filler: bytes = b"\0") -> bytes:
    """A safetensors file of float32 tensors."""
    head = headers.write({name: ("F32", shape) for name, shape in tensors.items()}, {})
    size = sum(_elements(shape) for shape in tensors.values()) * 4
    return head + filler * size


def model_files(
    *,
    template: str | None = TEMPLATE,
    tensors: Mapping[str, tuple[int, ...]] | None = None,
    config: Mapping[str, Any] | None = None,
    filler: bytes = b"\0",
) -> dict[str, bytes]:
    """Name → bytes of a checkpoint that loads."""
    words = {f"w{i}": i for i in range(WORDS - 1)} | {"?": WORDS - 1}
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "?"}
    if template is not None:
        settings["chat_template"] = template
    return {
        "config.json": json.dumps(CONFIG | dict(config or {})).encode(),
        "tokenizer.json": Tokenizer(WordLevel(words, unk_token="?")).to_str().encode(),
        "tokenizer_config.json": json.dumps(settings).encode(),
        "model.safetensors": weights(shapes() if tensors is None else tensors, filler),
    }


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    """The files in a folder."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def _elements(shape: tuple[int, ...]) -> int:
    count = 1
    for extent in shape:
        count *= extent
    return count

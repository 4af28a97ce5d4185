"""What only a model can tell before training: its size, and whether the training loop knows it.

No weights are read. The parameters are counted on the meta device; packing is tried on the CPU with
a model of the same architecture, two narrow layers of random weights.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from distiller import packing
from distiller.errors import DistillerError, InputError
from distiller.modelling import Student

_VOCABULARY = 256
_LENGTHS = (5, 9, 17, 33)
_WINDOW = 8  # shorter than the sequences, so that attention which ignores a window shows it


LOSS_TOLERANCE = 1e-3  # relative, float32


def probe(config: Any, *, longest: int | None = None, packed: bool = True) -> tuple[int, float]:
    """(parameters, largest difference between the training's logits and the model's own as a share
    of the largest logit) of a causal language model's configuration.

    ``packed`` says whether sequences share a row; the training's attention is another than the
    model's own even where they do not. ``longest`` is the longest sequence in tokens: attention
    windows that reach as far are none. Raises InputError where the architecture cannot be built or
    packed, and where its logits are more than the training's loss knows of.
    """
    disable_progress_bar()
    try:
        with torch.device("meta"):
            whole = AutoModelForCausalLM.from_config(config)
        parameters = sum(parameter.numel() for parameter in whole.parameters())
        return parameters, _difference(shrunk(config, longest), packed=packed)
    except DistillerError:
        raise
    except (ValueError, RuntimeError, TypeError, AttributeError, KeyError, ImportError) as error:
        sentence = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"packing: cannot be tried with this architecture ({sentence}); use a base of the "
            "Qwen2, Qwen3 or Llama kind."
        ) from error


def shrunk(config: Any, longest: int | None = None) -> Any:
    """The configuration with two narrow layers, a small vocabulary, and a window that is short
    where its own is shorter than ``longest`` tokens.
    """
    small = copy.deepcopy(config)
    shape = small.get_text_config()
    heads = 4
    grouped = getattr(shape, "num_key_value_heads", heads) < shape.num_attention_heads
    changes: dict[str, Any] = {
        "vocab_size": _VOCABULARY, "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 2, "num_attention_heads": heads,
        "num_key_value_heads": 2 if grouped else heads,
        "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
    }  # fmt: skip
    if getattr(shape, "head_dim", None):
        changes["head_dim"] = 16
    if getattr(shape, "layer_types", None):
        changes["layer_types"] = list(dict.fromkeys(shape.layer_types))[:2]
        changes["layer_types"] += changes["layer_types"][-1:] * (2 - len(changes["layer_types"]))
    if window := getattr(shape, "sliding_window", None):
        changes["sliding_window"] = _WINDOW if longest is None or window < longest else None
    for name, value in changes.items():
        setattr(shape, name, value)
    return small


def _difference(config: Any, *, packed: bool) -> float:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
        sequences = [torch.randint(_VOCABULARY, (length,)).tolist() for length in _LENGTHS]
        for parameter in model.parameters():
            # Random weights of the usual size hardly attend; larger ones show what is seen.
            # Biases begin as zeros, which would hide that one is left out.
            parameter.copy_(parameter * 5 if parameter.ndim >= 2 else _shaken(parameter))
        scale = float(model(input_ids=torch.tensor([sequences[-1]])).logits.abs().max())
    rows = [sequences] if packed else [[sequence] for sequence in sequences]
    difference = max(packing.packed_logits_difference(model, row) for row in rows)
    _require_known_loss(model, sequences)
    return difference / scale


def _shaken(vector: torch.Tensor) -> torch.Tensor:
    return vector + 0.2 * torch.randn_like(vector)


def _require_known_loss(model: Any, sequences: list[list[int]]) -> None:
    """The loss that is trained on must be that of the logits which the model writes by."""
    batch = packing.pack([(ids, 1) for ids in sequences], "cpu")
    with torch.no_grad():
        trained = float(Student(model, bfloat16=False)(batch))
        logits = model(
            input_ids=batch.input_ids, position_ids=batch.position_ids, layout=batch.layout,
            use_cache=False,
        ).logits[0]  # fmt: skip
        own = float(torch.nn.functional.cross_entropy(logits, batch.targets, reduction="sum"))
    if abs(trained - own) > LOSS_TOLERANCE * own:
        raise InputError(
            "base: its logits are more than its output layer's weights make of the hidden states "
            f"(a bias, a scale, a cap), so its loss would be {trained / own:.2f} times the right "
            "one; use a base of the Qwen2, Qwen3 or Llama kind."
        )

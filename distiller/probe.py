"""What only a model can tell before training: its size, and whether packed sequences stay apart.

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

_VOCABULARY = 256
_LENGTHS = (5, 9, 17, 33)
_WINDOW = 8  # shorter than the sequences, so that attention which ignores a window shows it


def probe(config: Any) -> tuple[int, float]:
    """(parameters, largest difference between packed and unpacked logits as a share of the largest
    logit) of a causal language model's configuration.

    Raises InputError where the architecture cannot be built or packed.
    """
    disable_progress_bar()
    try:
        with torch.device("meta"):
            whole = AutoModelForCausalLM.from_config(config)
        parameters = sum(parameter.numel() for parameter in whole.parameters())
        return parameters, _difference(shrunk(config))
    except DistillerError:
        raise
    except (ValueError, RuntimeError, TypeError, AttributeError, KeyError, ImportError) as error:
        sentence = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"packing: cannot be tried with this architecture ({sentence}); use a base of the "
            "Qwen2, Qwen3 or Llama kind."
        ) from error


def shrunk(config: Any) -> Any:
    """The configuration with two narrow layers and a small vocabulary."""
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
    if getattr(shape, "sliding_window", None):
        changes["sliding_window"] = _WINDOW
    for name, value in changes.items():
        setattr(shape, name, value)
    return small


def _difference(config: Any) -> float:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
        sequences = [torch.randint(_VOCABULARY, (length,)).tolist() for length in _LENGTHS]
    with torch.no_grad():
        # Random weights of the usual size hardly attend; larger ones show what is seen.
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(5)
        scale = float(model(input_ids=torch.tensor([sequences[-1]])).logits.abs().max())
    return packing.packed_logits_difference(model, sequences) / scale

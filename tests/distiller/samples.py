"""Tiny checkpoints of random weights, recipes and traces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distiller.filters import Trace
from distiller.recipe import Prompts, Recipe
from evaluator.records import Completion, FinishReason, Problem


def make_tiny(kind: str, folder: Path, *, vocabulary: int | None = None) -> Path:
    """A checkpoint of one narrow layer with the toy's tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

    from distiller import toy

    words = toy.tokenizer()
    torch.manual_seed(1)
    kinds = {"qwen2": Qwen2Config, "qwen3": Qwen3Config, "llama": LlamaConfig}
    config = kinds[kind](
        vocab_size=vocabulary or len(words), hidden_size=32, intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16, max_position_embeddings=256,
        bos_token_id=None, eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def recipe(base: Path | str = "base", **changes: Any) -> Recipe:
    return Recipe.model_validate(
        {"teacher": "teacher", "base": str(base), "student": "student",
         "prompts": Prompts(set="prompts").model_dump(), **changes}
    )  # fmt: skip


def trace(
    text: str,
    *,
    problem: str = "1+1",
    answer: str = "2",
    sample: int = 0,
    finish: FinishReason = FinishReason.STOP,
) -> Trace:
    key = problem.replace("+", "p").replace("-", "m")
    return Trace(Problem(key, problem, answer), Completion(key, sample, text, finish))

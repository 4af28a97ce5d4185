"""Tiny checkpoints of random weights, recipes and traces."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from distiller import corpus
from distiller.corpus import Encoder
from distiller.filters import Trace
from distiller.recipe import Prompts, Recipe, Training
from evaluator.benchmarks import arithmetic
from evaluator.records import Completion, FinishReason, Problem

if TYPE_CHECKING:
    from distiller.sft import Trained


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


FAST = {
    "epochs": 2, "learning_rate": 1e-2, "batch_size": 4, "max_length_tokens": 128,
    "gradient_checkpointing": False,
}  # fmt: skip


def sums(count: int, base: Path, out: Path) -> Path:
    """A corpus of so many examples, all different."""
    from distiller.toy import solve

    chosen = recipe(base)
    traces = [
        trace(solve(p.problem), problem=p.problem, answer=p.answer)
        for p in arithmetic.generate(count, seed=5, terms=2)
    ]
    corpus.build(traces, encoder=Encoder(base, chosen), recipe=chosen, out=out)
    assert len(corpus.read(out)[0]) == count
    return out


def run(corpus_folder: Path, base: Path, out: Path, **options: Any) -> Trained:
    """Train; ``training`` changes :data:`FAST`."""
    from distiller import sft

    training = Training(**{**FAST, **options.pop("training", {})})
    resume = options.pop("resume", out.with_name(f"{out.name}.resume"))
    return sft.train(corpus_folder, base, training, out, resume=resume, **options)

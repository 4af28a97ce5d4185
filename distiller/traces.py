"""Trace generation: the teacher answers the prompts (PROTOCOLS §5). No torch by itself."""

from __future__ import annotations

from dataclasses import replace

from distiller.prompting import teacher_prompt
from distiller.recipe import Recipe
from evaluator.protocol import Protocol, Thinking
from evaluator.records import Completion


def protocol(recipe: Recipe) -> Protocol:
    """The recipe's generation settings in the form in which engines take them."""
    generation = recipe.generation
    return Protocol(
        name="traces",
        samples=generation.samples,
        seed=generation.seed,
        sampling=generation.sampling,
        thinking=recipe.thinking,
        prompt=teacher_prompt(recipe),
    )


def is_text(*parts: str | None) -> bool:
    """Whether all parts are text that a tokenizer takes: JSON can hold half a surrogate pair."""
    try:
        "".join(part or "" for part in parts).encode()
    except UnicodeEncodeError:
        return False
    return True


def tagged(completion: Completion, thinking: Thinking | None) -> Completion:
    """The completion with its thoughts in tags, as a student is to write them.

    Only a completion whose thoughts came in a field of their own becomes another one.
    """
    if thinking is None or thinking.kind != "tags" or not completion.reasoning:
        return completion
    thoughts = f"{thinking.open}\n{completion.reasoning.strip()}\n{thinking.close}\n\n"
    return replace(completion, text=thoughts + completion.text.lstrip(), reasoning=None)

"""What is checked, in seconds, before a GPU is touched. Torch-free.

Each check answers one way in which fine-tuning is known to go wrong without an error message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from distiller.corpus import Encoder, Example
from distiller.errors import InputError
from distiller.filters.base import Trace
from distiller.recipe import Recipe
from evaluator.records import Completion, FinishReason, Problem


@dataclass(frozen=True, slots=True)
class Check:
    """One check's result. ``passed`` is None for a remark that stops nothing."""

    name: str
    passed: bool | None
    detail: str

    def to_json(self) -> dict[str, Any]:
        """The row of preflight.json."""
        return asdict(self)


def checks_before_generation(
    recipe: Recipe, encoder: Encoder, prompts: Sequence[Problem]
) -> list[Check]:
    """What can be told from the recipe, the base's tokenizer and the prompts alone.

    The response that a perfect teacher might give to the first prompt stands in for the traces.
    """
    if not prompts:
        raise InputError("prompts: there are none; give a prompt set with at least one problem.")
    first = prompts[0]
    thinking = recipe.thinking
    thoughts = f"{thinking.open}\nFirst.\n{thinking.close}\n\n" if thinking.kind == "tags" else ""
    text = f"{thoughts}\\boxed{{{first.answer}}}"
    trace = Trace(first, Completion(first.id, 0, text, FinishReason.STOP))
    longest = max(len(encoder.ids(encoder.prompt(problem.problem))) for problem in prompts)
    limit = recipe.training.max_length_tokens
    return [
        *checks_of_corpus([encoder.encode(trace)], encoder, recipe),
        Check(
            "prompt length",
            longest < limit,
            f"the longest of {len(prompts)} prompts has {longest} tokens, the cut-off is {limit}",
        ),
    ]


def checks_of_corpus(examples: Sequence[Example], encoder: Encoder, recipe: Recipe) -> list[Check]:
    """What must hold of a corpus before it is trained on."""
    supervised = sum(example.supervised_tokens for example in examples)
    tokens = sum(len(example.input_ids) for example in examples)
    ended = sum(example.input_ids[-1] == encoder.end_id for example in examples)
    longest = max(len(example.input_ids) for example in examples)
    limit = recipe.training.max_length_tokens
    return [
        Check(
            "ending token",
            ended == len(examples) and all(example.supervised_tokens for example in examples),
            f"{ended} of {len(examples)} examples end with the supervised token {encoder.end_id}",
        ),
        _padding(encoder),
        _thoughts(examples[0], encoder, recipe),
        Check(
            "supervised share",
            supervised > len(examples),
            f"{supervised} of {tokens} tokens carry loss ({supervised / tokens:.1%})",
        ),
        Check(
            "length",
            longest <= limit,
            f"the longest example has {longest} tokens, the cut-off is {limit}",
        ),
        Check("first example", None, show_mask(examples[0], encoder)),
    ]


def require_passed(checks: Sequence[Check]) -> None:
    """Raise InputError naming the first check that failed."""
    for check in checks:
        if check.passed is False:
            raise InputError(f"preflight: {check.name}: {check.detail}.")


def show_mask(example: Example, encoder: Encoder) -> str:
    """The example's text; what carries loss stands between ⟦ and ⟧."""
    head = encoder.decode(example.input_ids[: example.prompt_tokens])
    return f"{head}⟦{encoder.decode(example.input_ids[example.prompt_tokens :])}⟧"


def _padding(encoder: Encoder) -> Check:
    if encoder.pad_id != encoder.end_id:
        return Check("padding", True, "the padding token is not the ending token")
    return Check(
        "padding",
        None,
        "padding and ending token are the same; here that is harmless, because the mask goes by "
        "position, but a trainer that masks by token would not teach the student to end",
    )


def _thoughts(example: Example, encoder: Encoder, recipe: Recipe) -> Check:
    """The thinking tags must still be there when the ids are read back."""
    if recipe.thinking.kind != "tags":
        return Check("thinking tags", None, "this recipe has none")
    text = encoder.decode(example.input_ids)
    response = encoder.decode(example.input_ids[example.prompt_tokens :])
    opened, closed = recipe.thinking.open in text, recipe.thinking.close in response
    return Check(
        "thinking tags",
        opened and closed,
        f"{recipe.thinking.open} and {recipe.thinking.close} survive template and tokenizer"
        if opened and closed
        else f"{recipe.thinking.open if not opened else recipe.thinking.close} is lost between "
        "template and tokenizer: the student would not learn to think",
    )

"""What must hold of the examples themselves; each check is one sentence with its remedy.

Torch-free. The same checks look at stand-ins before there are traces (:mod:`distiller.preflight`)
and at the whole corpus before it is trained on.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, TypeVar

import numpy as np

from distiller.corpus import TRACES, Corpus
from distiller.encoding import Encoder, Example, Rendered
from distiller.errors import InputError
from distiller.recipe import Recipe

LOOKED_AT = 1000  # traces, chats or prompts of each kind; more would not be a matter of seconds
SHOWN_CHARACTERS = 3000  # of each half of the example that is shown
Item = TypeVar("Item")


class Level(StrEnum):
    """How bad a check's result is."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Check:
    """One check's result; ``detail`` is one sentence, with the remedy where something is wrong."""

    name: str
    level: Level
    detail: str

    def to_json(self) -> dict[str, Any]:
        """The row of preflight.json."""
        return asdict(self)


def ok(name: str, detail: str) -> Check:
    """A check that passed."""
    return Check(name, Level.OK, detail)


def note(name: str, detail: str) -> Check:
    """Something to know."""
    return Check(name, Level.NOTE, detail)


def warning(name: str, detail: str) -> Check:
    """Something for a person to judge."""
    return Check(name, Level.WARNING, detail)


def error(name: str, detail: str) -> Check:
    """Something that stops the run."""
    return Check(name, Level.ERROR, detail)


def checks_of_corpus(
    examples: Sequence[Example], encoder: Encoder, recipe: Recipe, *, known: bool = True
) -> list[Check]:
    """What must hold of the examples themselves. ``known`` says that they are no stand-ins."""
    if not len(examples):
        return [error("corpus", "it is empty; relax the filters, or draw more traces")]
    return [
        _ending(examples, encoder),
        _padding(encoder),
        _thoughts(examples, encoder, recipe),
        _supervised(examples),
        _cut_off(examples, recipe, known=known),
    ]


def require_passed(checks: Sequence[Check]) -> None:
    """Raise InputError with the first error."""
    for check in checks:
        if check.level is Level.ERROR:
            raise InputError(f"preflight: {check.name}: {check.detail}.")


def mask_pieces(example: Example, encoder: Encoder) -> list[dict[str, Any]]:
    """The example's text in two pieces, ``{"text", "supervised"}``; long ones are shortened."""
    ids, prompt = example.input_ids, example.prompt_tokens
    return [
        {"text": _shortened(encoder.decode(ids[:prompt])), "supervised": False},
        {"text": _shortened(encoder.decode(ids[prompt:])), "supervised": True},
    ]


def spread(items: Sequence[Item]) -> list[Item]:
    """At most :data:`LOOKED_AT` of them, evenly spread, the first always."""
    step = max(1, -(-len(items) // LOOKED_AT))
    return list(items[::step])


def lengths_of(examples: Sequence[Example]) -> list[int]:
    """Tokens of each example."""
    if isinstance(examples, Corpus):
        return [int(length) for length in examples.lengths]
    return [len(example.input_ids) for example in examples]


def supervised_of(examples: Sequence[Example]) -> np.ndarray:
    """Tokens of each example that carry loss, (examples,)."""
    if isinstance(examples, Corpus):
        return examples.supervised
    return np.array([example.supervised_tokens for example in examples])


def _ending(examples: Sequence[Example], encoder: Encoder) -> Check:
    name, token = "ending token", f"{encoder.end_token} ({encoder.end_id})"
    last, cut = _last_tokens(examples)
    ended = int(((last == encoder.end_id) & (supervised_of(examples) > 0)).sum())
    if ended + cut < len(examples) or not ended:
        return error(
            name,
            f"{ended} of {len(examples)} examples end with {token} under the loss, so the student "
            "would not learn to end; build the corpus again, with a longer "
            "training.max_length_tokens where it truncates",
        )
    own = encoder.tokenizer.eos_token
    other = "" if own == encoder.end_token else f"; the student gets it in place of {own}"
    return ok(name, f"{token} ends every response that is not cut off, and carries loss{other}")


def _last_tokens(examples: Sequence[Example]) -> tuple[np.ndarray, int]:
    """Each example's last token id, and how many were cut off."""
    if isinstance(examples, Corpus):
        return examples.last_tokens, int(examples.rows["cut"].sum())
    last = np.array([example.input_ids[-1] for example in examples])
    return last, sum(example.cut for example in examples)


def _padding(encoder: Encoder) -> Check:
    name = "padding"
    if encoder.pad_token is None:
        return note(name, "the tokenizer has no padding token; this training needs none")
    if encoder.pad_id != encoder.end_id:
        return ok(name, f"{encoder.pad_token} pads, and is not the ending token")
    return warning(
        name,
        f"{encoder.pad_token} is both padding and the ending token: harmless here, where the mask "
        "goes by position, but a trainer that masks padding by its id would never teach the "
        "student to end; name another token in corpus.padding_token",
    )


def _thoughts(examples: Sequence[Example], encoder: Encoder, recipe: Recipe) -> Check:
    """The thinking tags must still be there when the ids are read back."""
    name, tags = "thinking tags", recipe.thinking
    if tags.kind == "none":
        return note(name, "this recipe has none")
    chosen = [each for each in (examples[i] for i in spread(range(len(examples))))
              if each.source == TRACES]  # fmt: skip
    lost: list[str] = []
    for example in chosen:
        prompt = encoder.decode(example.input_ids[: example.prompt_tokens])
        response = encoder.decode(example.input_ids[example.prompt_tokens :])
        if prompt.rstrip().endswith(tags.close):
            return error(
                name,
                f"the chat template closes the thoughts ({tags.close}) before the response begins, "
                "so the student would learn to think outside of them; give a template that does "
                "not, in corpus.chat_template",
            )
        opened = prompt.rstrip().endswith(tags.open) or tags.open in response
        if not opened or (tags.close not in response and not example.cut):
            lost.append(tags.open if not opened else tags.close)
    if lost:
        say = error if len(lost) == len(chosen) else warning
        return say(
            name,
            f"{lost[0]} is lost between template and tokenizer, or missing, in {len(lost)} of "
            f"{len(chosen)} examples: the student would not learn to think; switch the format "
            "filter on, or set thinking to the tags that the traces have",
        )
    pieces = {tag: encoder.ids(tag) for tag in (tags.open, tags.close)}
    split = [f"{tag} as {len(ids)} tokens" for tag, ids in pieces.items() if len(ids) > 1]
    if split:
        return warning(
            name,
            f"they survive, but the tokenizer writes {' and '.join(split)}, which may merge with "
            "what stands beside them; a base whose vocabulary has them learns them more easily",
        )
    return ok(name, f"{tags.open} and {tags.close} survive template and tokenizer, a token each")


def round_trip(rendered: Sequence[Rendered], encoder: Encoder) -> Check:
    """What the tokenizer is given it must give back."""
    for each in rendered:
        for text in (each.prompt, each.response):
            back = encoder.decode(encoder.ids(text))
            if unicodedata.normalize("NFC", back) != unicodedata.normalize("NFC", text):
                at = next(
                    (i for i, (a, b) in enumerate(zip(text, back, strict=False)) if a != b),
                    min(len(text), len(back)),
                )
                return error(
                    "round trip",
                    f"problem {each.problem_id}: the tokenizer turns {text[at : at + 20]!r} into "
                    f"{back[at : at + 20]!r}, so the student would learn another text than is "
                    "read; use the tokenizer that belongs to the base",
                )
    return ok(
        "round trip",
        f"the texts of {len(rendered)} looked at come back from their tokens unchanged",
    )


def _supervised(examples: Sequence[Example]) -> Check:
    supervised, tokens = supervised_of(examples), sum(lengths_of(examples))
    empty = int((supervised <= 1).sum())
    if empty == len(examples):
        return error(
            "supervised share",
            "no token but the ending one carries loss: the responses are empty; look at the "
            "traces, and switch the format filter on",
        )
    share = (
        f"{int(supervised.sum())} of {tokens} tokens carry loss ({supervised.sum() / tokens:.1%})"
    )
    if empty:
        return warning(
            "supervised share",
            f"{share}, but {empty} of {len(examples)} responses are empty; switch the format "
            "filter on",
        )
    return ok("supervised share", share)


def _cut_off(examples: Sequence[Example], recipe: Recipe, *, known: bool) -> Check:
    """How many are longer than they may be."""
    name, limit = "cut-off", recipe.training.max_length_tokens
    lengths = np.array(lengths_of(examples))
    over = int((lengths > limit).sum())
    if isinstance(examples, Corpus):
        over += int(examples.rows["cut"].sum())
    what = "truncated" if recipe.corpus.too_long == "truncate" else "dropped"
    whose = f"{len(examples)} examples" if known else "stand-ins for traces"
    if not over:
        return ok(name, f"all {whose} fit into {limit} tokens; the longest has {lengths.max()}")
    sentence = (
        f"{over} of {whose} are longer than {limit} tokens and are {what}; raise "
        "training.max_length_tokens"
    )
    return error(name, sentence) if over == len(examples) else warning(name, sentence)


def _shortened(text: str) -> str:
    if len(text) <= SHOWN_CHARACTERS:
        return text
    half = SHOWN_CHARACTERS // 2
    return f"{text[:half]} […{len(text) - 2 * half} characters…] {text[-half:]}"

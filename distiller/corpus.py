"""The corpus: traces as token ids with a loss mask, and a manifest. Torch-free.

Prompts are rendered by the same code that renders them at inference; the response is appended as
the model itself would have written it, and then the ending token. So no chat template can drop the
thoughts of an assistant turn, as DeepSeek's does. Supervised are the response's tokens and the
ending token, and nothing is masked because of its id: where a tokenizer pads with its ending token,
the model still learns to end.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distiller.errors import CorpusError, InputError
from distiller.filters.base import Reason, Trace
from distiller.recipe import Recipe
from evaluator.engines.base import forced_start
from evaluator.engines.prompting import Prompter
from evaluator.protocol import Protocol
from evaluator.records import canonical_json, content_hash

EXAMPLES, MANIFEST = "examples.jsonl", "manifest.json"
SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Example:
    """One training sequence. Tokens from ``prompt_tokens`` on carry loss; the last one ends it."""

    problem_id: str
    sample: int
    input_ids: tuple[int, ...]
    prompt_tokens: int

    @property
    def supervised_tokens(self) -> int:
        """Tokens that carry loss."""
        return len(self.input_ids) - self.prompt_tokens


class Encoder:
    """Turns traces into examples with a base checkpoint's tokenizer and template."""

    def __init__(self, base_model: Path, recipe: Recipe) -> None:
        self._prompter = Prompter(base_model)
        self._recipe = recipe
        self._protocol = Protocol(thinking=recipe.thinking)
        end = self._prompter.tokenizer.eos_token_id
        if end is None:
            raise InputError(f"base: the tokenizer in {base_model} has no EOS token; set one.")
        self.end_id = int(end)
        self.pad_id: int | None = self._prompter.tokenizer.pad_token_id

    @property
    def template_hash(self) -> str | None:
        """SHA-256 of the chat template."""
        return self._prompter.template_hash

    def prompt(self, problem: str) -> str:
        """The rendered prompt, a forced response start included, as at inference."""
        return self._prompter.render(problem, prompt=self._recipe.prompt, protocol=self._protocol)

    def response(self, prompt: str, completion: str) -> str:
        """What the model has to write after ``prompt``: the completion less a forced start."""
        start = forced_start(prompt, self._recipe.thinking)
        if start and completion.startswith(start.rstrip("\n")):
            completion = completion.removeprefix(start.rstrip("\n"))
            return completion.removeprefix("\n") if start.endswith("\n") else completion
        return completion

    def encode(self, trace: Trace) -> Example:
        """Token ids: the prompt's, the response's, the ending token."""
        prompt = self.prompt(trace.problem.problem)
        prompt_ids = self.ids(prompt)
        response_ids = self.ids(self.response(prompt, trace.text))
        return Example(
            trace.problem.id,
            trace.completion.sample,
            (*prompt_ids, *response_ids, self.end_id),
            len(prompt_ids),
        )

    def ids(self, text: str) -> list[int]:
        """Token ids of ``text`` as it stands: no special tokens are added."""
        return list(self._prompter.tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids``, special tokens included."""
        return str(
            self._prompter.tokenizer.decode(
                list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )


def build(
    traces: Sequence[Trace],
    *,
    encoder: Encoder,
    recipe: Recipe,
    out: Path,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Reason]:
    """Write the corpus folder ``out`` and return, per trace, None or why it did not fit.

    The only reason is ``too_long``: more tokens than ``training.max_length_tokens``, because a
    response that is cut off teaches not to end. Raises CorpusError for an empty corpus, and leaves
    nothing behind then.
    """
    limit = recipe.training.max_length_tokens
    examples: list[Example] = []
    reasons: list[Reason] = []
    for done, trace in enumerate(traces, start=1):
        example = encoder.encode(trace)
        reasons.append("too_long" if len(example.input_ids) > limit else None)
        if reasons[-1] is None:
            examples.append(example)
        on_progress(done, len(traces))
    if not examples:
        raise CorpusError(
            f"corpus: empty: none of {len(traces)} traces that passed the filters fits into "
            f"{limit} tokens; raise training.max_length_tokens or relax the filters."
        )
    if not sum(example.supervised_tokens - 1 for example in examples):
        raise CorpusError("corpus: no token but the ending one carries loss: empty responses.")
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    with (part / EXAMPLES).open("w", encoding="utf-8") as file:
        for example in examples:
            file.write(json.dumps(_to_json(example), ensure_ascii=False) + "\n")
    manifest = _manifest(examples, encoder, recipe, _sha256(part / EXAMPLES))
    (part / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    shutil.rmtree(out, ignore_errors=True)
    os.rename(part, out)  # noqa: PTH104
    return reasons


def read(folder: Path) -> tuple[list[Example], dict[str, Any]]:
    """The examples and the manifest of a corpus folder.

    Raises CorpusError when it is missing, damaged, or carries no supervised token.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        digest = _sha256(folder / EXAMPLES)
    except (OSError, ValueError) as error:
        raise CorpusError(f"corpus: {folder} cannot be read ({error}); build it again.") from error
    if digest != manifest.get("examples_sha256"):
        raise CorpusError(f"corpus: {EXAMPLES} is not the file of {MANIFEST}; build it again.")
    examples = list(_read_examples(folder / EXAMPLES))
    if not sum(example.supervised_tokens for example in examples):
        raise CorpusError(f"corpus: {folder.name} has no supervised tokens; build it again.")
    return examples, manifest


def manifest_hash(manifest: dict[str, Any]) -> str:
    """SHA-256 of the manifest's canonical JSON: the corpus' address."""
    return content_hash(manifest)


def token_histogram(lengths: Sequence[int]) -> list[dict[str, int]]:
    """Counts of sequences by length, in buckets ``low ≤ tokens < high`` that double."""
    buckets: dict[int, int] = {}
    for length in lengths:
        buckets[length.bit_length()] = buckets.get(length.bit_length(), 0) + 1
    return [
        {"low": 1 << (bits - 1), "high": 1 << bits, "count": buckets.get(bits, 0)}
        for bits in range(min(buckets), max(buckets) + 1)
    ]


def _manifest(
    examples: Sequence[Example], encoder: Encoder, recipe: Recipe, digest: str
) -> dict[str, Any]:
    lengths = [len(example.input_ids) for example in examples]
    recipe_json = recipe.model_dump(mode="json")
    return {
        "schema": SCHEMA_VERSION,
        "examples": len(examples),
        "problems": len({example.problem_id for example in examples}),
        "tokens": sum(lengths),
        "supervised_tokens": sum(example.supervised_tokens for example in examples),
        "longest_tokens": max(lengths),
        "token_histogram": token_histogram(lengths),
        "end_token_id": encoder.end_id,
        "template_hash": encoder.template_hash,
        "recipe_hash": hashlib.sha256(canonical_json(recipe_json).encode()).hexdigest(),
        "examples_sha256": digest,
    }


def _to_json(example: Example) -> dict[str, Any]:
    return {
        "problem_id": example.problem_id,
        "sample": example.sample,
        "prompt_tokens": example.prompt_tokens,
        "input_ids": list(example.input_ids),
    }


def _read_examples(path: Path) -> Iterator[Example]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            yield Example(
                row["problem_id"], row["sample"], tuple(row["input_ids"]), row["prompt_tokens"]
            )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

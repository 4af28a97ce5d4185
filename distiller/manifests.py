"""What a corpus' manifest says: counts, lengths, and hashes of all that the corpus depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from distiller import templates
from distiller.encoding import Encoder
from distiller.recipe import Recipe
from evaluator.records import content_hash

SCHEMA_VERSION = 2
# The modules whose text decides which tokens come out, from the project's root.
_CODE = (
    *(f"distiller/{name}.py" for name in ("corpus", "encoding", "mixing", "templates")),
    "evaluator/engines/prompting.py",
)
_LIBRARIES = ("transformers", "tokenizers", "jinja2")


def manifest_hash(manifest: dict[str, Any]) -> str:
    """SHA-256 of the manifest's canonical JSON: the corpus' address."""
    return content_hash(manifest)


def token_histogram(lengths: Sequence[int] | np.ndarray) -> list[dict[str, int]]:
    """Counts of sequences by length, in buckets ``low ≤ tokens < high`` that double."""
    buckets: dict[int, int] = {}
    for length in lengths:
        bits = int(length).bit_length()
        buckets[bits] = buckets.get(bits, 0) + 1
    return [
        {"low": 1 << (bits - 1), "high": 1 << bits, "count": buckets.get(bits, 0)}
        for bits in range(min(buckets), max(buckets) + 1)
    ]


def counts(keys: Path, lengths: np.ndarray, supervised: np.ndarray) -> dict[str, Any]:
    """Sizes of the whole corpus. ``keys`` is its keys.jsonl; the arrays are (examples,), tokens."""
    with keys.open(encoding="utf-8") as file:
        problems = {hash(json.loads(line)[0]) for line in file}
    return {
        "schema": SCHEMA_VERSION,
        "examples": len(lengths),
        "problems": len(problems),
        "tokens": int(lengths.sum()),
        "supervised_tokens": int(supervised.sum()),
        "supervised_share": float(supervised.sum() / lengths.sum()),
        "longest_tokens": int(lengths.max()),
        "token_histogram": token_histogram(lengths),
    }


def origin(encoder: Encoder, recipe: Recipe) -> dict[str, Any]:
    """Template, tokenizer, recipe part and code, each with its hash; no path and no time."""
    part = recipe_part(recipe)
    return {
        "end_token_id": encoder.end_id,
        "end_token": encoder.end_token,
        "pad_token": encoder.pad_token,
        "chat_template": encoder.template,
        "template_hash": _hash_of(encoder.template),
        "tokenizer_hash": templates.tokenizer_hash(encoder.tokenizer),
        "recipe": part,
        "recipe_hash": content_hash(part),
        "code": code_version(),
    }


def recipe_part(recipe: Recipe) -> dict[str, Any]:
    """What of the recipe decides the corpus. Files are told by their hashes, not by their paths."""
    plan = recipe.corpus.model_dump(mode="json")
    for source in plan["general"]:
        del source["file"]
    return {
        "prompt": recipe.prompt,
        "thinking": recipe.thinking.model_dump(mode="json"),
        "decontaminate": recipe.decontaminate,
        "corpus": plan,
        "max_length_tokens": recipe.training.max_length_tokens,
    }


@lru_cache(maxsize=1)
def code_version() -> dict[str, str]:
    """SHA-256 of the modules that decide the tokens, and the libraries' versions."""
    digest = hashlib.sha256()
    root = Path(__file__).parent.parent
    for name in _CODE:
        digest.update((root / name).read_bytes())
    return {"sha256": digest.hexdigest(), **{name: version(name) for name in _LIBRARIES}}


def _hash_of(text: str | None) -> str | None:
    return None if text is None else hashlib.sha256(text.encode()).hexdigest()

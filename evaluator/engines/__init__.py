"""Engines by name: one file each and one line here."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, cast

from evaluator.engines.base import Engine, Request
from evaluator.errors import InputError

__all__ = ["Engine", "Request", "create", "names"]

# name -> module and class; imported on demand, because torch and vLLM are heavy.
_ENGINES = {
    "openai": ("evaluator.engines.openai", "OpenAIEngine"),
    "replay": ("evaluator.engines.replay", "ReplayEngine"),
    "transformers": ("evaluator.engines.transformers", "TransformersEngine"),
    "vllm": ("evaluator.engines.vllm", "VllmEngine"),
}


def names() -> tuple[str, ...]:
    """Names that :func:`create` knows."""
    return tuple(_ENGINES)


def create(settings: Mapping[str, Any]) -> Engine:
    """Build the engine that ``settings["name"]`` names; the other keys are its options.

    ``model`` is a checkpoint's folder (``replay``: a file of completions; ``openai``: a name).
    Raises InputError for an unknown name, an unknown option or an unusable model.
    """
    options = dict(settings)
    name = options.pop("name", None)
    if name not in _ENGINES:
        raise InputError(f"engine: none is called {name!r}; known: {', '.join(_ENGINES)}.")
    module, kind = _ENGINES[name]
    factory = getattr(importlib.import_module(module), kind)
    unknown = sorted(set(options) - set(factory.OPTIONS))
    if unknown:
        raise InputError(
            f"engine {name}: unknown option {unknown[0]!r}; known: {', '.join(factory.OPTIONS)}."
        )
    return cast(Engine, factory(**options))

"""Between the values of the distillation's form and a recipe: both ways, and nothing is lost.

Most fields hold one value of the recipe (``PATHS``); a few belong together (a price, adapters,
stretched positions, the filters, what is measured). What a recipe holds beyond them is kept as
YAML in the form's field ``more``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from distiller.recipe import Recipe
from evaluator.protocol import PRESETS, Protocol
from webapp.runs.launching import filter_fields, recipe_yaml
from webapp.runs.launching.recipe_yaml import Loc

# Form field → where its value stands in the recipe; an empty field is None there.
PATHS: dict[str, tuple[str, ...]] = {
    "teacher": ("teacher",),
    "base": ("base",),
    "student": ("student",),
    "prompt_set": ("prompts", "set"),
    "prompts_limit": ("prompts", "limit"),
    "prompt": ("prompt",),
    "thinking": ("thinking", "kind"),
    "thinking_forced": ("thinking", "forced"),
    "samples": ("generation", "samples"),
    "stop_after": ("generation", "stop_after"),
    "mode": ("generation", "mode"),
    "temperature": ("generation", "sampling", "temperature"),
    "top_p": ("generation", "sampling", "top_p"),
    "max_tokens": ("generation", "sampling", "max_tokens"),
    "decontaminate": ("decontaminate",),
    "traces_weight": ("corpus", "traces_weight"),
    "too_long": ("corpus", "too_long"),
    "chat_template": ("corpus", "chat_template"),
    "epochs": ("training", "epochs"),
    "learning_rate": ("training", "learning_rate"),
    "warmup_ratio": ("training", "warmup_ratio"),
    "batch_size": ("training", "batch_size"),
    "max_length_tokens": ("training", "max_length_tokens"),
    "micro_batch_tokens": ("training", "micro_batch_tokens"),
    "dtype": ("training", "dtype"),
    "packing": ("training", "packing"),
    "gradient_checkpointing": ("training", "gradient_checkpointing"),
    "held_out_share": ("training", "held_out_share"),
    "benchmarks": ("evaluation", "benchmarks"),
    "roles": ("evaluation", "roles"),
    "evaluation_engine": ("evaluation", "engine"),
}
# Fields that make one part of the recipe together; a complaint of the part stands at the first.
PARTS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("name",): ("name",),
    ("generation", "engine"): ("engine",),
    ("generation", "price"): ("price_input", "price_output", "price_currency"),
    ("filters",): ("filters",),
    ("corpus", "general"): ("general_file", "general_kept", "general_weight"),
    ("training", "lora"): ("method", "lora_rank", "lora_alpha", "lora_dropout"),
    ("training", "rope"): ("rope_kind", "rope_factor", "rope_original"),
    ("evaluation", "protocol", "samples"): ("evaluation_samples",),
    ("evaluation", "protocol", "sampling", "max_tokens"): ("evaluation_max_tokens",),
}
_LEAVES: dict[tuple[str, ...], str] = {
    **{path: name for name, path in PATHS.items()},
    ("generation", "price", "input_per_million"): "price_input",
    ("generation", "price", "output_per_million"): "price_output",
    ("generation", "price", "currency"): "price_currency",
    ("training", "lora", "rank"): "lora_rank",
    ("training", "lora", "alpha"): "lora_alpha",
    ("training", "lora", "dropout"): "lora_dropout",
    ("training", "rope", "kind"): "rope_kind",
    ("training", "rope", "factor"): "rope_factor",
    ("training", "rope", "original_tokens"): "rope_original",
    **{path: fields[0] for path, fields in PARTS.items()},
    ("evaluation", "protocol"): "protocol",
}
GENERAL = "general"  # the name of the form's one source of chats


def field_of(loc: Loc) -> str | None:
    """The form field where a complaint about a part of the recipe belongs; None: none has it."""
    path = tuple(str(part) for part in loc)
    return next((_LEAVES[path[:n]] for n in range(len(path), 0, -1) if path[:n] in _LEAVES), None)


def twice_given(more: Mapping[str, Any], *, general: bool) -> list[str]:
    """The dotted names in ``more`` that have a field of their own.

    Several sources of chats have none; ``general`` says whether the form's one is used.
    """
    owned = {*PATHS.values(), *PARTS}
    if not general:
        owned.discard(("corpus", "general"))
    return [
        recipe_yaml.dotted(loc)
        for loc, _ in recipe_yaml.leaves(more)
        if any(tuple(loc[:n]) in owned for n in range(1, len(loc) + 1))
        or any(path[: len(loc)] == tuple(loc) for path in owned)
    ]


def fields_of(data: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe's fields, as :class:`Recipe` validates them, of a form's values.

    Names stand for what was chosen; ``more`` holds plain data. Its fields stand over the others'.
    """
    fields: dict[str, Any] = {}
    for name, path in PATHS.items():
        _put(fields, path, data.get(name))
    fields["name"] = data.get("name") or data["student"] or "distillation"
    generation, training, corpus = fields["generation"], fields["training"], fields["corpus"]
    generation["engine"] = data["engine"]
    prices = (data.get("price_input"), data.get("price_output"))
    if prices != (None, None):
        generation["price"] = {
            "input_per_million": prices[0], "output_per_million": prices[1],
            "currency": data.get("price_currency") or "USD",
        }  # fmt: skip
    if data.get("method") == "lora":
        training["lora"] = {key: data[f"lora_{key}"] for key in ("rank", "alpha", "dropout")}
    if data.get("rope_kind"):
        training["rope"] = {
            "kind": data["rope_kind"], "factor": data.get("rope_factor"),
            "original_tokens": data.get("rope_original"),
        }  # fmt: skip
    if data.get("general_kept"):
        source = {"name": GENERAL, "file": data["general_kept"], "weight": data["general_weight"]}
        corpus["general"] = [source]
    fields["filters"], _ = filter_fields.choices_of(data)
    evaluation = fields["evaluation"]
    evaluation["engine"] = evaluation["engine"] or None
    evaluation["benchmarks"] = sorted(evaluation["benchmarks"] or ())
    evaluation["protocol"] = _protocol(data, fields["thinking"])
    return recipe_yaml.merged(fields, data.get("more") or {})


def _protocol(data: Mapping[str, Any], thinking: Mapping[str, Any]) -> dict[str, Any]:
    """The chosen preset with the form's own n and limit; the student is asked as it was taught."""
    fields = PRESETS[data["protocol"]].model_dump(mode="json")
    fields["thinking"] |= thinking
    if data.get("evaluation_samples") is not None:
        fields["samples"] = data["evaluation_samples"]
    if data.get("evaluation_max_tokens") is not None:
        fields["sampling"]["max_tokens"] = data["evaluation_max_tokens"]
    return fields


def values_of(recipe: Recipe) -> dict[str, Any]:
    """A form's values of a recipe, names standing for what is to be chosen; ``more`` is YAML.

    :func:`fields_of` of them is the recipe again, but for where an endpoint is.
    """
    recipe = portable(recipe)
    whole = recipe.model_dump(mode="json")
    values: dict[str, Any] = {name: _get(whole, path) for name, path in PATHS.items()}
    values["name"] = "" if recipe.name == recipe.student else recipe.name
    values["engine"] = recipe.generation.engine
    values |= _price(recipe) | _lora(recipe) | _rope(recipe) | _general(recipe)
    values |= filter_fields.initial_of(recipe.filters)
    values |= _measured(recipe.evaluation.protocol)
    rest = recipe_yaml.difference(whole, _plain(fields_of(values)))
    return values | {"more": recipe_yaml.dump(rest)}


def portable(recipe: Recipe) -> Recipe:
    """The recipe without where its teacher's endpoint is, and its filters without defaults."""
    generation = recipe.generation.model_copy(update={"base_url": None, "model": None})
    return recipe.model_copy(
        update={"generation": generation, "filters": filter_fields.normal(recipe.filters)}
    )


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe of these fields, whole; names may be empty."""
    return Recipe.model_validate(fields).model_dump(mode="json")


def _price(recipe: Recipe) -> dict[str, Any]:
    price = recipe.generation.price
    if price is None:
        return {"price_input": None, "price_output": None, "price_currency": "USD"}
    return {
        "price_input": price.input_per_million,
        "price_output": price.output_per_million,
        "price_currency": price.currency,
    }


def _lora(recipe: Recipe) -> dict[str, Any]:
    lora = recipe.training.lora
    if lora is None:
        return {"method": "full"}
    return {"method": "lora"} | {f"lora_{key}": value for key, value in lora.model_dump().items()}


def _rope(recipe: Recipe) -> dict[str, Any]:
    rope = recipe.training.rope
    if rope is None:
        return {"rope_kind": "", "rope_factor": None, "rope_original": None}
    return {
        "rope_kind": rope.kind, "rope_factor": rope.factor, "rope_original": rope.original_tokens,
    }  # fmt: skip


def _general(recipe: Recipe) -> dict[str, Any]:
    sources = recipe.corpus.general
    if len(sources) != 1 or sources[0].name != GENERAL:  # none, or more than the form can show
        return {"general_kept": "", "general_weight": 1.0}
    return {"general_kept": sources[0].file, "general_weight": sources[0].weight}


def _measured(protocol: Protocol) -> dict[str, Any]:
    """The preset that a protocol was made from, and what the form has of the difference."""
    named = PRESETS.get(protocol.name, PRESETS["quick"])
    preset = PRESETS["r1"] if protocol.samples is None else named
    limit = protocol.sampling.max_tokens
    return {
        "protocol": preset.name,
        "evaluation_samples": None if protocol.samples == preset.samples else protocol.samples,
        "evaluation_max_tokens": None if limit == preset.sampling.max_tokens else limit,
    }


def _put(fields: dict[str, Any], path: Iterable[str], value: Any) -> None:
    *before, last = path
    for key in before:
        fields = fields.setdefault(key, {})
    fields[last] = value


def _get(fields: Any, path: Iterable[str]) -> Any:
    for key in path:
        fields = fields[key]
    return fields

"""From a recipe to a filled-in form: names become choices, and names of what is gone are told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from webapp.benchmarks.queries import latest_benchmarks, latest_prompt_sets
from webapp.checkpoints.models import Checkpoint
from webapp.checkpoints.queries import runnable, with_files
from webapp.core.models import User
from webapp.projects.access import seen_by
from webapp.runs.launching import chats, mapping, recipe_yaml
from webapp.runs.launching.presets import Preset
from webapp.runs.launching.recipe_yaml import Draft

# Left empty, these follow the chosen checkpoint's context.
_BY_CONTEXT = {
    "max_tokens": ("generation", "sampling", "max_tokens"),
    "max_length_tokens": ("training", "max_length_tokens"),
}


@dataclass(frozen=True, slots=True)
class Filled:
    """A form's values, and what is to be said at which field."""

    initial: dict[str, Any]
    notes: dict[str, str]


def fill(draft: Draft, user: User) -> Filled:
    """The form's values of a recipe, and a note for every name that is not here to be seen."""
    values, notes = mapping.values_of(draft.recipe), {}
    given = {tuple(map(str, loc)) for loc, _ in recipe_yaml.leaves(draft.given)}
    for field, path in _BY_CONTEXT.items():
        if path not in given:
            values[field] = None
    if ("name",) not in given:
        values["name"] = ""
    if values["engine"] == "openai":
        values["engine"] = "transformers"
    for field, found in (
        ("teacher", seen_by(user, runnable())),
        ("base", seen_by(user, with_files())),
        ("prompt_set", latest_prompt_sets()),
    ):
        name = values[field]
        chosen = found.filter(name=name).first() if name else None
        values[field] = chosen.pk if chosen else None
        if name and chosen is None:
            what = field.replace("_", " ")
            notes[field] = f"The recipe's {what} {name!r} is not here (any more); choose another."
    wanted = values["benchmarks"]
    here = set(latest_benchmarks().values_list("name", flat=True)) if wanted else set()
    values["benchmarks"] = [name for name in wanted if name in here]
    if gone := [name for name in wanted if name not in here]:
        notes["benchmarks"] = f"Not installed here (any more): {', '.join(gone)}."
    if (name := values["student"]) != (free := free_name(name)):
        values["student"] = free
        notes["student"] = f"{name!r} is there already, so another name stands here."
    if (kept := values["general_kept"]) and not chats.may_use(user, kept):
        values["general_kept"] = ""
        notes["general_file"] = f"The recipe's chats {kept[:80]!r} are not here; upload them."
    return Filled(values, notes)


def preset_values(preset: Preset, user: User) -> tuple[dict[str, Any], list[tuple[str, Any]]]:
    """A preset's values for the form without names, and (field, value) of what it sets itself."""
    values = fill(preset.draft, user).initial
    for name in ("teacher", "base", "student", "prompt_set", "benchmarks", "general_kept", "name"):
        values.pop(name)
    sets: dict[str, Any] = {}
    for loc, value in recipe_yaml.leaves(preset.draft.given):
        if tuple(loc[:2]) == ("evaluation", "protocol"):
            sets["protocol"] = preset.draft.recipe.evaluation.protocol.name
        elif loc[0] == "filters":
            sets["filters"] = ", ".join(each.name for each in preset.draft.recipe.filters)
        elif tuple(loc[:2]) == ("training", "lora"):
            sets["method"] = "LoRA"
            sets[mapping.field_of(loc) or "more"] = value
        elif (field := mapping.field_of(loc)) is not None:
            sets[field] = value
    return values, list(sets.items())


def free_name(name: str) -> str:
    """The name, or where a checkpoint has it already the first of name-2, name-3 … that is free."""
    if not name or not Checkpoint.objects.filter(name=name).exists():
        return name
    stem = name[:190]
    taken = set(
        Checkpoint.objects.filter(name__startswith=f"{stem}-").values_list("name", flat=True)
    )
    return next(f"{stem}-{n}" for n in range(2, len(taken) + 3) if f"{stem}-{n}" not in taken)

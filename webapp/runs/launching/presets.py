"""The launch form's presets: recipes without names, a YAML file each in ``presets/``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from webapp.runs.launching import recipe_yaml
from webapp.runs.launching.recipe_yaml import Draft

FOLDER = Path(__file__).parent / "presets"
ORDER = ("r1-distill", "quick", "demo")


@dataclass(frozen=True, slots=True)
class Preset:
    """A recipe to begin with: what its file gives, the rest as the recipe's own defaults."""

    name: str
    about: str
    draft: Draft


@cache
def all_of_them() -> dict[str, Preset]:
    """The presets by name, in the order of the page. Raises YamlError for a wrong file."""
    return {name: _read(name) for name in ORDER}


def _read(name: str) -> Preset:
    document = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    text = recipe_yaml.dump(document["recipe"])
    return Preset(name, document["about"], recipe_yaml.read_draft(text))

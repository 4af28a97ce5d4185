"""Figures that others published, each with its source; two sources may contradict each other."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

FILE = Path(__file__).resolve().parent / "published.json"


@dataclass(frozen=True, slots=True)
class Source:
    """Where figures stand. ``number`` is its place among all sources, from 1."""

    number: int
    title: str
    url: str


@dataclass(frozen=True, slots=True)
class Figure:
    """One published figure: a share in [0, 1], or a rating in Elo points."""

    value: float
    source: Source
    note: str = ""


@dataclass(frozen=True, slots=True)
class Model:
    """A model that others measured. What is not known of it is blank."""

    name: str
    family: str
    parameters: int | None
    teacher: str
    base: str
    figures: Mapping[
        str, tuple[Figure, ...]
    ]  # by column, as "aime_2024:pass@1"; first is shown first

    @property
    def benchmarks(self) -> set[str]:
        """Those that it has figures on."""
        return {key.split(":")[0] for key in self.figures}


@lru_cache(maxsize=1)
def models() -> tuple[Model, ...]:
    """All of them, in the file's order."""
    held = json.loads(FILE.read_text(encoding="utf-8"))
    sources: dict[tuple[str, str], Source] = {}
    figures: dict[str, dict[str, list[Figure]]] = {}
    for entry in held["figures"]:
        place = (entry["source"], entry["source_url"])
        source = sources.setdefault(place, Source(len(sources) + 1, *place))
        for key, cell in entry["cells"].items():
            columns = figures.setdefault(entry["model"], {})
            columns.setdefault(key, []).append(Figure(cell["value"], source, cell.get("note", "")))
    return tuple(
        Model(
            name=name,
            family=facts["family"],
            parameters=facts["parameters"],
            teacher=facts["teacher"],
            base=facts["base"],
            figures={key: tuple(found) for key, found in figures[name].items()},
        )
        for name, facts in held["models"].items()
    )


def of(*names: str) -> Model | None:
    """The published model of one of these names, however written: with an owner, in capitals."""
    wanted = {_plain(name) for name in names if name}
    return next((model for model in models() if _plain(model.name) in wanted), None)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.rsplit("/", 1)[-1].lower())

"""A recipe as YAML: written to be copied and edited, read as what a stranger pasted.

What is read is plain data: no tags, no aliases (so no document grows when it is read), a bounded
length and depth, every key once. Each mistake is a sentence with the line and the field.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import ValidationError

from distiller import filters
from distiller.errors import InputError
from distiller.recipe import FilterChoice, Recipe
from webapp.core.text import storable

MOST_CHARACTERS = 200_000
MOST_DEPTH = 20
MOST_EVENTS = 10_000  # values and brackets; a whole recipe has a few hundred
# What a draft may leave open: the form then asks for it.
OPEN: dict[str, Any] = {"teacher": "", "base": "", "student": "", "prompts": {"set": ""}}

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
Loc = Sequence[str | int]


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong: ``line`` counts from 1, ``field`` is dotted; both may be unknown."""

    sentence: str
    line: int | None = None
    field: str = ""

    def __str__(self) -> str:
        places = [f"line {self.line}"] if self.line else []
        return ": ".join([", ".join([*places, *([self.field] if self.field else [])]) or "YAML",
                          self.sentence])  # fmt: skip


class YamlError(Exception):
    """A text that is no recipe; ``mistakes`` says why, in order of their lines."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = sorted(mistakes, key=lambda mistake: mistake.line or 0)
        super().__init__(" ".join(map(str, self.mistakes)))


@dataclass(frozen=True, slots=True)
class Draft:
    """A recipe that may leave names open (empty), and the fields that its text gave."""

    recipe: Recipe
    given: dict[str, Any]


def dump(fields: Mapping[str, Any]) -> str:
    """Fields (plain data, as ``model_dump(mode="json")`` gives) as YAML, in their order."""
    if not fields:
        return ""
    return str(
        yaml.dump(dict(fields), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    )


def recipe_text(recipe: Recipe) -> str:
    """The whole recipe as YAML."""
    return dump(recipe.model_dump(mode="json"))


def read_draft(text: str) -> Draft:
    """The recipe in a text; names may be left out. Raises YamlError."""
    given, root = _read(text)
    try:
        recipe = Recipe.model_validate(merged(OPEN, given))
    except ValidationError as error:
        raise YamlError(
            [
                Mistake(_said(each["msg"]), line_of(root, each["loc"]), dotted(each["loc"]))
                for each in error.errors(include_url=False)
            ]
        ) from error
    checks: list[tuple[Loc, Sequence[FilterChoice]]] = [
        (("filters", at), [choice]) for at, choice in enumerate(recipe.filters)
    ]
    for loc, choices in [*checks, (("filters",), recipe.filters)]:
        try:
            filters.create(choices)
        except InputError as error:
            sentence = str(error).removeprefix("filters: ")
            raise YamlError([Mistake(sentence, line_of(root, loc), dotted(loc))]) from error
    for at, sentence in unfed(recipe.filters).items():
        raise YamlError([Mistake(sentence, line_of(root, ("filters", at)), f"filters.{at}")])
    return Draft(recipe, given)


def unfed(choices: Sequence[FilterChoice]) -> dict[int, str]:
    """Place of a filter → why no run can follow it; a recipe names no file of what it looks at.

    Raises distiller.errors.InputError for one that is unknown.
    """
    told = {}
    for at, choice in enumerate(choices):
        [rule] = filters.create([choice])
        if rule.needs is not None:
            told[at] = (
                f"{rule.name} looks at {rule.needs} beside the traces, which a run here is not "
                "given; leave it out, or filter on the command line (python -m distiller filter "
                f"--{_OPTIONS[rule.needs]} FILE)."
            )
    return told


_OPTIONS = {"guesses": "guesses", "verdicts": "judged"}


def read_fields(text: str) -> dict[str, Any]:
    """The fields in a text, plain data; an empty text has none. Raises YamlError."""
    return _read(text)[0] if text.strip() else {}


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``under`` with the fields of ``over``, field by field; lists are replaced whole."""
    result = dict(under)
    for key, value in over.items():
        before = result.get(key)
        both = isinstance(before, Mapping) and isinstance(value, Mapping)
        result[key] = merged(before, value) if both else value  # type: ignore[arg-type]
    return result


def difference(whole: Mapping[str, Any], under: Mapping[str, Any]) -> dict[str, Any]:
    """What has to be merged over ``under`` to get ``whole``, which has all keys of ``under``."""
    result: dict[str, Any] = {}
    for key, value in whole.items():
        before = under.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            if inner := difference(value, before):
                result[key] = inner
        elif value != before:
            result[key] = value
    return result


def leaves(fields: Mapping[str, Any], before: tuple[str, ...] = ()) -> Iterator[tuple[Loc, Any]]:
    """(path, value) of everything that is no mapping with something in it."""
    for key, value in fields.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, (*before, str(key)))
        else:
            yield (*before, str(key)), value


def dotted(loc: Loc) -> str:
    """``training.epochs``, ``filters.2.name``."""
    return ".".join(str(part) for part in loc)


def line_of(root: Any, loc: Loc) -> int:
    """The line, from 1, of a field, or of the nearest that holds it."""
    node, line = root, root.start_mark.line + 1
    for part in loc:
        inner = None
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == part:
                    inner, line = value, key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            inner = node.value[part] if part < len(node.value) else None
            line = inner.start_mark.line + 1 if inner is not None else line
        if inner is None:
            break
        node = inner
    return int(line)


# --- reading


def _read(text: str) -> tuple[dict[str, Any], Any]:
    """(fields, root node)."""
    if len(text) > MOST_CHARACTERS:
        raise YamlError([Mistake(f"longer than {MOST_CHARACTERS:,} characters; shorten it.")])
    try:
        _check_events(text)
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            if not isinstance(root, yaml.MappingNode):
                raise YamlError([Mistake("give the recipe's fields, each as name: value.", 1)])
            _check_keys(root)
            fields = loader.construct_document(root)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        sentence = f"this is no YAML ({error.problem or error.context})."
        raise YamlError([Mistake(sentence, mark.line + 1 if mark else None)]) from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200]
        raise YamlError([Mistake(f"a value cannot be read ({reason}).")]) from error
    for path, value in _scalars(fields):
        _check_value(value, root, path)
    return fields, root


def _check_events(text: str) -> None:
    """Refuse what plain data never needs, before anything is built from it."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=_Loader)):
        line = event.start_mark.line + 1  # type: ignore[union-attr]
        if count > MOST_EVENTS:
            raise YamlError([Mistake("holds too many values for a recipe; shorten it.", line)])
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise YamlError([Mistake("aliases (& and *) are not read; write it out.", line)])
        if getattr(event, "tag", None):
            raise YamlError([Mistake("tags (!) are not read; leave them out.", line)])
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MOST_DEPTH:
            raise YamlError([Mistake(f"nested deeper than {MOST_DEPTH} levels.", line)])


def _check_keys(node: Any) -> None:
    if isinstance(node, yaml.SequenceNode):
        for each in node.value:
            _check_keys(each)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
            raise YamlError([Mistake("a field's name must be a word.", line)])
        if key.value in seen:
            raise YamlError([Mistake("stands here a second time; remove one.", line, key.value)])
        seen.add(key.value)
        _check_keys(value)


def _scalars(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[Loc, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield path, key
            yield from _scalars(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _scalars(inner, (*path, index))
    else:
        yield path, value


def _check_value(value: Any, root: Any, path: Loc) -> None:
    """Refuse what no database keeps, and what is no JSON: a date, bytes, infinity."""
    if isinstance(value, float) and not math.isfinite(value):
        sentence = "give a finite number."
    elif isinstance(value, str) and storable(value) != value:
        sentence = "holds a NUL or half a character; remove it."
    elif value is not None and not isinstance(value, bool | int | float | str):
        sentence = "put it in quotation marks; it was read as a date or bytes."
    else:
        return
    raise YamlError([Mistake(sentence, line_of(root, path), dotted(path))])


def _said(message: str) -> str:
    return message.removeprefix("Value error, ").removeprefix("Input ").rstrip(".") + "."

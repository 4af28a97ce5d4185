"""The registry of filters: one file each and one line here. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from distiller.errors import InputError
from distiller.filters.answer import Answer
from distiller.filters.base import Context, Filter, Reason, Trace
from distiller.filters.code import Code
from distiller.filters.duplicates import Duplicates
from distiller.filters.format import Format
from distiller.filters.guessable import Guessable
from distiller.filters.length import LengthBounds
from distiller.filters.loops import Loops
from distiller.filters.mixed_language import MixedLanguage
from distiller.filters.paragraphs import Paragraphs
from distiller.filters.pass_rate import PassRate
from distiller.filters.select import Select
from distiller.filters.truncated import Truncated
from distiller.recipe import FilterChoice

__all__ = ["Context", "Filter", "Reason", "Trace", "create", "get", "names"]

# The order in which they are best switched on: what tells most of a fault first, graders late.
_REGISTRY: dict[str, type[Filter]] = {
    kind.name: kind
    for kind in (
        Loops,
        Truncated,
        Format,
        MixedLanguage,
        Paragraphs,
        Code,
        LengthBounds,
        Answer,
        Guessable,
        PassRate,
        Duplicates,
        Select,
    )
}


def names() -> list[str]:
    """Names of all known filters."""
    return list(_REGISTRY)


def get(name: str) -> type[Filter]:
    """Return the filter class called ``name``; raises InputError naming the known ones."""
    try:
        return _REGISTRY[name]
    except KeyError:
        known = ", ".join(_REGISTRY)
        raise InputError(f"filters: none is called {name!r}; known: {known}.") from None


def create(choices: Sequence[FilterChoice]) -> list[Filter]:
    """Build the filters that a recipe switches on: those of one trace first, else in its order.

    Raises InputError for an unknown filter or parameter, or one that is switched on twice, before
    anything is filtered.
    """
    built: list[Filter] = []
    for choice in choices:
        try:
            built.append(get(choice.name)(**choice.parameters))
        except (ValidationError, TypeError) as error:
            first = (
                ".".join(map(str, error.errors()[0]["loc"])) + ": " + error.errors()[0]["msg"]
                if isinstance(error, ValidationError)
                else str(error)
            )
            known = ", ".join(get(choice.name).model_fields) or "none"
            raise InputError(
                f"filters: {choice.name}: {first} (its parameters: {known})."
            ) from error
    chosen = [rule.name for rule in built]
    if twice := [name for name in chosen if chosen.count(name) > 1]:
        raise InputError(f"filters: {twice[0]} is switched on twice; leave one out.")
    return sorted(built, key=lambda rule: rule.scope != "trace")

"""The registry of filters: one file each and one line here. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from distiller.errors import InputError
from distiller.filters.answer import Answer
from distiller.filters.base import Context, Filter, Reason, Trace
from distiller.filters.duplicates import Duplicates
from distiller.filters.format import Format
from distiller.filters.loops import Loops
from distiller.filters.mixed_language import MixedLanguage
from distiller.filters.truncated import Truncated
from distiller.recipe import FilterChoice

__all__ = ["Context", "Filter", "Reason", "Trace", "create", "get", "names"]

_REGISTRY: dict[str, type[Filter]] = {
    kind.name: kind for kind in (Truncated, Format, Answer, MixedLanguage, Loops, Duplicates)
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
    """Build the filters that a recipe switches on, in its order.

    Raises InputError for an unknown filter or parameter, before anything is filtered.
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
    return built

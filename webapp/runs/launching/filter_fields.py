"""Form fields of the filters, made from their registry: a switch each, and its parameters."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from django import forms
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from distiller import filters
from distiller.filters.base import Filter
from distiller.recipe import FilterChoice
from evaluator import graders
from evaluator.protocol import Config

PREFIX = "filter"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a filter: ``path`` leads to it through nested configurations."""

    filter: str
    path: tuple[str, ...]
    info: FieldInfo

    @property
    def field(self) -> str:
        """Its name in the form."""
        return "-".join((PREFIX, self.filter, *self.path))

    @property
    def label(self) -> str:
        """Its name in words."""
        return " ".join(self.path).replace("_", " ").capitalize()


def parameters(name: str) -> list[Parameter]:
    """A filter's parameters, those of a nested configuration one by one."""
    return _parameters(name, filters.get(name), ())


def _parameters(name: str, kind: type[Config], before: tuple[str, ...]) -> list[Parameter]:
    found = []
    for key, info in kind.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, Config):
            found += _parameters(name, info.annotation, (*before, key))
        else:
            found.append(Parameter(name, (*before, key), info))
    return found


def offered() -> list[str]:
    """The filters that a run can be launched with: those that look at nothing beside the traces."""
    return [name for name in filters.names() if filters.get(name)().needs is None]


def about(name: str) -> str:
    """What a filter does, in the words of its own documentation."""
    text = (filters.get(name).__doc__ or "").partition("\n\n")[0]
    return " ".join(text.replace("`", "").split())


def form_fields() -> dict[str, forms.Field]:
    """Every parameter's form field, by its name in the form."""
    return {each.field: _form_field(each) for name in offered() for each in parameters(name)}


def _form_field(parameter: Parameter) -> forms.Field:
    info, default = parameter.info, parameter.info.default
    kinds = _alternatives(info.annotation)
    optional = type(None) in kinds
    common: dict[str, Any] = {
        "required": False, "initial": default, "label": parameter.label,
        "help_text": _help(info.description or "", optional),
    }  # fmt: skip
    kind = next(each for each in kinds if each is not type(None))
    if get_origin(kind) is Literal:
        choices = [(value, str(value)) for value in get_args(kind) if _is_fed(parameter, value)]
        return forms.ChoiceField(choices=choices, **common)
    if parameter.path[-1] == "grader":
        names = [name for name in graders.names() if not graders.get(name).untrusted]
        return forms.ChoiceField(choices=[(name, name) for name in names], **common)
    if kind is bool:
        return forms.BooleanField(**common)
    if kind is int:
        return forms.IntegerField(**common)
    return forms.FloatField(**common) if kind is float else forms.CharField(**common)


def _is_fed(parameter: Parameter, value: str) -> bool:
    """Whether a filter with that value looks at nothing beside the traces."""
    fields: dict[str, Any] = {}
    _put(fields, parameter.path, value)
    return filters.get(parameter.filter)(**fields).needs is None


def _alternatives(annotation: Any) -> Sequence[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        return get_args(annotation)
    return (annotation,)


def _help(description: str, optional: bool) -> str:
    said = description[:1].upper() + description[1:]
    if optional and "None" in said:
        return said.replace("None:", "empty:") + "."
    return f"{said}." if said else ""


def initial_of(choices: Sequence[FilterChoice]) -> dict[str, Any]:
    """The form's values of switched-on filters: their parameters, and which are on in what order.

    Those of the others are their defaults.
    """
    values: dict[str, Any] = {}
    built = {choice.name: filters.get(choice.name)(**choice.parameters) for choice in choices}
    for name in filters.names():
        rule = built.get(name)
        for each in parameters(name):
            values[each.field] = each.info.default if rule is None else _value(rule, each.path)
    return values | {"filters": list(built), "filters_order": ",".join(built)}


def _value(rule: Filter, path: Sequence[str]) -> Any:
    value: Any = rule
    for key in path:
        value = getattr(value, key)
    return value


def choices_of(data: Mapping[str, Any]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """(switched-on filters as a recipe holds them, form field → complaint) of a form's values.

    Parameters that are the default are left out. Filters stand as ``filters_order`` says, then in
    the registry's order.
    """
    order = [*str(data.get("filters_order") or "").split(","), *filters.names()]
    chosen, complaints = [], {}
    for name in sorted(data.get("filters") or (), key=order.index):
        changed: dict[str, Any] = {}
        for each in parameters(name):
            value = data.get(each.field)
            if value is None and type(None) not in _alternatives(each.info.annotation):
                value = each.info.default
            if value == "" and each.info.default != "":
                value = each.info.default
            if value != each.info.default:
                _put(changed, each.path, value)
        chosen.append({"name": name, "parameters": changed})
        try:
            filters.get(name)(**changed)
        except ValidationError as error:
            for problem in error.errors():
                path = "-".join((PREFIX, name, *map(str, problem["loc"])))
                field = path if problem["loc"] else "filters"
                what = " ".join((name, *map(str, problem["loc"]))).replace("_", " ")
                complaints[field] = f"{what}: {problem['msg'].removeprefix('Value error, ')}."
    return chosen, complaints


def normal(choices: Sequence[FilterChoice]) -> tuple[FilterChoice, ...]:
    """The same filters with no parameter that is the default, and numbers of their own kind."""
    rules = [(choice.name, filters.get(choice.name)(**choice.parameters)) for choice in choices]
    return tuple(
        FilterChoice(name=name, parameters=rule.model_dump(mode="json", exclude_defaults=True))
        for name, rule in rules
    )


def _put(fields: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for key in path[:-1]:
        fields = fields.setdefault(key, {})
    fields[path[-1]] = value

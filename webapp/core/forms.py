"""What forms say of bad input: a sentence that names the field and the remedy."""

from __future__ import annotations

from collections.abc import Mapping

from django import forms
from django.forms.utils import pretty_name


def speak(fields: Mapping[str, forms.Field]) -> None:
    """Give every field sentences in place of Django's own, which name neither field nor remedy."""
    for name, field in fields.items():
        label = field.label or pretty_name(name)  # as the page calls it
        field.error_messages.update(
            {code: f"{label}: {rest}" for code, rest in _rests(field).items()}
        )


def _rests(field: forms.Field) -> dict[str, str]:
    """Error code → what to do; ``%(…)s`` is filled in by Django."""
    if isinstance(field, forms.ChoiceField):
        return {
            "required": "choose one.",
            "invalid_choice": "that is not among the choices (any more); choose another.",
            "invalid_pk_value": "that is not among the choices (any more); choose another.",
            "invalid_list": "that is not among the choices (any more); choose again.",
        }
    rests = {
        "required": "fill this in.",
        "max_length": "at most %(limit_value)d characters; these are %(show_value)d.",
        "null_characters_not_allowed": "holds a null character; remove it.",
    }
    if isinstance(field, forms.FileField):
        rests["required"] = "choose one."
    if isinstance(field, forms.IntegerField):  # FloatField is one too
        kind = "a number" if isinstance(field, forms.FloatField) else "a whole number"
        rests["required"] = f"give {kind}."
        rests["invalid"] = f"give {kind}."
        rests["min_value"] = f"give {kind} of at least %(limit_value)s."
        rests["max_value"] = f"give {kind} of at most %(limit_value)s."
    return rests

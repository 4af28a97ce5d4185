"""The pages' forms as judges of what comes as JSON: the same rules, the same sentences."""

from __future__ import annotations

from typing import Any

from django import forms

from webapp.core.errors import UserError


def cleaned(form: forms.Form) -> dict[str, Any]:
    """What the form makes of its data. Raises UserError with the first thing that is wrong."""
    if form.is_valid():
        return form.cleaned_data
    for field, sentences in form.errors.items():
        raise UserError(str(sentences[0]), None if field == "__all__" else field)
    raise UserError("body: cannot be followed.", "body")

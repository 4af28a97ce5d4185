"""The pages' forms as judges of what comes as JSON: the same rules, the same sentences."""

from __future__ import annotations

from typing import Any

from django import forms
from django.http import HttpRequest

from webapp.api.framework import Schema
from webapp.core.errors import UserError


def cleaned(form: forms.Form) -> dict[str, Any]:
    """What the form makes of its data. Raises UserError with the first thing that is wrong."""
    if form.is_valid():
        return form.cleaned_data
    for field, sentences in form.errors.items():
        raise UserError(str(sentences[0]), None if field == "__all__" else field)
    raise UserError("body: cannot be followed.", "body")


def only_known(request: HttpRequest, body: type[Schema] | None = None) -> None:
    """Refuse fields of a form with a file that are neither ``body``'s nor the file.

    As unknown fields of JSON are, which the framework looks at. Raises UserError.
    """
    known = {"file", *(body.model_fields if body is not None else ())}
    for name in (*request.POST, *request.FILES):
        if name not in known:
            shown = name[:60]
            raise UserError(
                f"{shown}: the form has no such field; it has {', '.join(sorted(known))}.", shown
            )

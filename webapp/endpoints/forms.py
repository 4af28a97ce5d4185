"""Forms of endpoints. A key is never sent back to the browser."""

from __future__ import annotations

from typing import Any

from django import forms

from webapp.core.forms import speak
from webapp.core.models import User
from webapp.endpoints.services import MOST_CONCURRENT
from webapp.projects.forms import add_place


def _key(help_text: str) -> forms.CharField:
    return forms.CharField(
        required=False, max_length=4096, help_text=help_text,
        widget=forms.PasswordInput(
            render_value=False, attrs={"autocomplete": "new-password", "spellcheck": "false"}
        ),
    )  # fmt: skip


def _price(which: str) -> forms.FloatField:
    return forms.FloatField(
        required=False, min_value=0, max_value=1_000_000, label=f"Price of {which} tokens",
        help_text="US dollars per million. Empty: not accounted.",
    )  # fmt: skip


class ChangeForm(forms.Form):
    """What may change of an endpoint without making another model of it."""

    key = _key("Empty: the key stays as it is. It is stored encrypted and not shown again.")
    remove_key = forms.BooleanField(required=False, label="Remove the key")
    concurrency = forms.IntegerField(
        min_value=1, max_value=MOST_CONCURRENT, initial=64,
        help_text="Requests at a time, at most; fewer while it refuses or slows down.",
    )  # fmt: skip
    input_price = _price("input")
    output_price = _price("output")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        speak(self.fields)


class RegisterForm(ChangeForm):
    """A new endpoint."""

    remove_key = None  # type: ignore[assignment]
    name = forms.CharField(
        max_length=200, help_text="What its scores stand under; unique among checkpoints, too."
    )
    base_url = forms.CharField(
        max_length=500, label="Base URL",
        help_text="As https://host/v1: chat/completions follows it.",
        widget=forms.TextInput(attrs={"inputmode": "url", "spellcheck": "false"}),
    )  # fmt: skip
    model = forms.CharField(max_length=200, help_text="The name by which the endpoint serves it.")
    key = _key("Stored encrypted and not shown again. Empty: none is sent.")

    def __init__(self, owner: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        add_place(self.fields, owner)
        self.order_fields(
            ["name", "project", "base_url", "model", "key", "concurrency", "input_price",
             "output_price"]
        )  # fmt: skip

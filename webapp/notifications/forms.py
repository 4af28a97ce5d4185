"""How a person wants to hear of the end of their runs."""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings

from webapp.core.forms import speak


class PreferenceForm(forms.Form):
    """Where to, and of which ends."""

    email = forms.EmailField(
        required=False, max_length=254, label="Mail to",
        help_text="Empty: no mail.",
    )  # fmt: skip
    webhook_url = forms.CharField(
        required=False, max_length=500, label="Webhook",
        help_text="An address that gets a signed POST, as https://host/path. Empty: none.",
        widget=forms.TextInput(attrs={"inputmode": "url", "spellcheck": "false"}),
    )  # fmt: skip
    new_secret = forms.BooleanField(
        required=False, label="Make a new secret for the webhook",
        help_text="It is shown once; the old one signs nothing any more.",
    )  # fmt: skip
    on_finished = forms.BooleanField(required=False, label="when a run finished")
    on_failed = forms.BooleanField(required=False, label="when a run failed")
    on_cancelled = forms.BooleanField(required=False, label="when a run was cancelled")

    def __init__(self, *args: Any, has_secret: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not has_secret:
            del self.fields["new_secret"]
        if not settings.EMAIL_CONFIGURED:
            self.fields["email"].disabled = True
            self.fields["email"].help_text = "This installation has no mail server (EMAIL_URL)."
        speak(self.fields)
        self.fields["email"].error_messages["invalid"] = "Mail to: give an address as name@host."

    @property
    def places(self) -> list[forms.BoundField]:
        """Where to."""
        return [field for field in self if not field.name.startswith("on_")]

    @property
    def ends(self) -> list[forms.BoundField]:
        """Of which ends."""
        return [field for field in self if field.name.startswith("on_")]

"""The upload form."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from django import forms
from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.db.models import QuerySet

from webapp.checkpoints.services import check_name
from webapp.core.errors import UserError
from webapp.core.forms import speak
from webapp.core.models import User
from webapp.projects.forms import PlaceField, add_place
from webapp.projects.models import Project

_TAG = re.compile(r"[\w.-]{1,40}")
_LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+ ()-]*")


class FilesInput(forms.FileInput):
    """A picker of several files; static/js/upload.js turns it into one of folders."""

    allow_multiple_selected = True


class FilesField(forms.FileField):
    """Any number of uploaded files."""

    widget = FilesInput

    def clean(self, data: Any, initial: Any = None) -> list[UploadedFile[Any]]:
        """Clean every file by itself."""
        given: Sequence[Any] = data if isinstance(data, (list, tuple)) else [data]
        return [super(FilesField, self).clean(one, initial) for one in given or [None]]


class UploadForm(forms.Form):
    """A checkpoint's name and its files."""

    name = forms.CharField(
        max_length=200,
        help_text="Letters, digits, dots, hyphens and underscores; unique here.",
    )

    def __init__(self, owner: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        speak(self.fields)
        add_place(self.fields, owner)
        # Set here because a form has an attribute called files already.
        self.fields["files"] = FilesField(
            allow_empty_file=True,
            error_messages={
                "required": "files: choose the checkpoint's folder (config.json, tokenizer.json, "
                "*.safetensors)."
            },
            help_text="The folder as transformers saves it: config.json, tokenizer files and "
            "*.safetensors. Pickled weights are refused.",
        )

    def clean_name(self) -> str:
        """A name must be usable and new, before a long upload is looked at."""
        return usable_name(self.cleaned_data["name"], "name")

    def named_files(self, paths: Sequence[str]) -> list[tuple[str, UploadedFile[Any]]]:
        """Pair each file with its path as the browser's folder picker gave it.

        ``paths`` are like ``folder/config.json``; without them (no JavaScript) a file's own name
        is its path. Only after ``is_valid``.
        """
        files: list[UploadedFile[Any]] = self.cleaned_data["files"]
        if len(paths) != len(files):
            return [(file.name or "", file) for file in files]
        return list(zip(paths, files, strict=True))


class HubForm(forms.Form):
    """A model on the hub, and what it will be called here."""

    repository = forms.CharField(
        max_length=193, label="Model", help_text="OWNER/NAME, as on the model's page."
    )
    revision = forms.CharField(
        max_length=200, required=False, help_text="Branch, tag or commit; blank: main as it is now."
    )
    name = forms.CharField(
        max_length=200, required=False, help_text="What it is called here; blank: as on the hub."
    )

    def __init__(self, owner: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        speak(self.fields)
        add_place(self.fields, owner)


class FolderForm(forms.Form):
    """A folder of the server, for administrators."""

    folder = forms.CharField(max_length=500)
    name = forms.CharField(max_length=200, help_text="What it is called here.")

    def __init__(self, owner: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        speak(self.fields)
        add_place(self.fields, owner)
        self.fields["folder"].help_text = f"Below {settings.RETORT_IMPORT_ROOT}."


class DetailsForm(forms.Form):
    """What its owner says of a checkpoint."""

    notes = forms.CharField(max_length=5000, required=False, widget=forms.Textarea({"rows": 3}))
    tags = forms.CharField(
        max_length=500, required=False, help_text="Words apart by commas or spaces, to filter by."
    )
    licence = forms.CharField(
        max_length=100, required=False, help_text="Of the weights, an SPDX name as apache-2.0."
    )
    prompts_licence = forms.CharField(
        max_length=100, required=False, label="Licence of the prompts",
        help_text="Of what a student was taught with.",
    )  # fmt: skip

    def __init__(self, *args: Any, places: QuerySet[Project] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        speak(self.fields)
        if places:
            self.fields["project"] = PlaceField(
                places,
                "Who is in it sees the checkpoint; where it is open, everybody. Scores stay with "
                "the runs that made them.",
            )

    def clean_tags(self) -> list[str]:
        """Words in lower case, each once, in their order."""
        words = self.cleaned_data["tags"].replace(",", " ").lower().split()
        for word in words:
            if not _TAG.fullmatch(word):
                raise forms.ValidationError(
                    f"tags: {word[:50]!r} will not do; use up to 40 letters, digits, dots, hyphens "
                    "and underscores."
                )
        return list(dict.fromkeys(words))

    def clean_licence(self) -> str:
        """One word."""
        return self._licence("licence")

    def clean_prompts_licence(self) -> str:
        """One word."""
        return self._licence("prompts_licence")

    def _licence(self, field: str) -> str:
        value: str = self.cleaned_data[field].strip()
        if value and not _LICENCE.fullmatch(value):
            label = self.fields[field].label or field
            raise forms.ValidationError(f"{label}: give an SPDX name, as apache-2.0 or MIT.")
        return value


def usable_name(name: str, field: str) -> str:
    """``check_name`` for forms: its sentence becomes the field's error."""
    try:
        return check_name(name, field)
    except UserError as error:
        raise forms.ValidationError(error.sentence) from error

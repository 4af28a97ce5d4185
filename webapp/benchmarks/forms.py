"""The form by which contest bundles and populations come in."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from django import forms
from django.core.files.uploadedfile import UploadedFile

from evaluator.contests import SUFFIXES
from evaluator.errors import InputError
from evaluator.run_rating import Yardstick
from webapp.core.forms import speak

LARGEST_BYTES = 256 << 20  # a bundle with the tests of ten problems has a tenth of it
KINDS = [
    ("contest", "a contest bundle"),
    ("population", "a population: the ratings that percentiles refer to"),
]


class ContestForm(forms.Form):
    """One file: a contest bundle, or a population of ratings."""

    kind = forms.ChoiceField(choices=KINDS, initial="contest", label="What it is")
    file = forms.FileField(
        allow_empty_file=True,
        help_text="A bundle as python -m evaluator import-contest writes it, or a JSON list of "
        "ratings or {rating: count}: .json or .json.gz.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        speak(self.fields)

    def clean(self) -> dict[str, Any]:
        """Read the file, so that its mistakes stand beside the field."""
        data: dict[str, Any] = super().clean() or {}
        uploaded: UploadedFile[Any] | None = data.get("file")
        if uploaded is None or "kind" not in data:
            return data
        try:
            data["yardstick"] = _read(uploaded, data["kind"])
        except InputError as error:
            self.add_error("file", f"file: {error}")
        return data


def _read(uploaded: UploadedFile[Any], kind: str) -> Yardstick:
    name = Path(uploaded.name or "file").name
    if not name.endswith(SUFFIXES):
        raise InputError(f"{name} is neither .json nor .json.gz; choose such a file.")
    if (uploaded.size or 0) > LARGEST_BYTES:
        raise InputError(f"{name} is larger than {LARGEST_BYTES >> 20} MiB; use import_contests.")
    with tempfile.TemporaryDirectory(prefix="retort-") as folder:
        path = Path(folder) / name  # a population is called after its file
        with path.open("wb") as file:
            file.writelines(uploaded.chunks())
        if kind == "population":
            return Yardstick.read([], path)
        return Yardstick.read([path])

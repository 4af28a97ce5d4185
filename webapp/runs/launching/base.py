"""What launch forms share: choices from what is installed, and sentences at their fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from django import forms
from django.db.models import QuerySet

from webapp.checkpoints.models import Checkpoint
from webapp.core.forms import speak
from webapp.core.models import User
from webapp.projects.access import seen_by
from webapp.projects.forms import add_place
from webapp.projects.models import Project
from webapp.runs.devices import MOST
from webapp.runs.models import Run
from webapp.runs.turns import HIGHEST, LOWEST

if TYPE_CHECKING:
    _CheckpointField = forms.ModelChoiceField[Checkpoint]
    _CheckpointsField = forms.ModelMultipleChoiceField[Checkpoint]
else:
    _CheckpointField = forms.ModelChoiceField
    _CheckpointsField = forms.ModelMultipleChoiceField

LONGEST_TOKENS = 1_048_576  # more than any model's context

PROTOCOL_CHOICES = [
    ("quick", "quick: n = 4, at most 4,096 tokens"),
    ("r1", "r1: the DeepSeek-R1 protocol, n by benchmark, 32,768 tokens"),
    ("r1-cons64", "r1-cons64: the same with n = 64 everywhere"),
    ("greedy", "greedy: n = 1, temperature 0"),
]
ENGINE_CHOICES = [("transformers", "transformers"), ("vllm", "vLLM")]


class LaunchForm(forms.Form):
    """A form whose choices are what is installed and what the person sees."""

    # Field → what to do where it has nothing to choose from.
    REMEDIES = {
        "teacher": "Upload a teacher or register an endpoint first: neither is here.",
        "base": "Upload a base first: no checkpoint with files is here.",
        "checkpoints": "Upload a checkpoint or register an endpoint first: neither is here.",
        "prompt_set": "Import a prompt set first: none is installed.",
        "benchmark": "Import a benchmark first: none is installed.",
    }

    # Field → what is to be said of it though it is no mistake: a name that is gone.
    notes: Mapping[str, str] = {}
    # Fields that a preset has set.
    set_by_preset: frozenset[str] = frozenset()
    preset = ""

    def __init__(self, user: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.user = user
        speak(self.fields)
        about = "Who is in it sees the run; of an open one everybody."
        self._home = add_place(self.fields, user, about)
        self._choose_place(self.initial.pop("project", None))

    def _choose_place(self, wanted: Any) -> None:
        """Begin with the wanted project where the person works in it, else the one used last."""
        field = self.fields.get("project")
        if not isinstance(field, forms.ModelChoiceField) or field.queryset is None:
            return
        places = {str(pk) for pk in field.queryset.values_list("pk", flat=True)}
        used = Run.objects.filter(owner=self.user).order_by("-pk").values_list("project", flat=True)
        known = [each for each in (wanted, used.first()) if str(each) in places]
        field.initial = known[0] if known else field.initial

    @property
    def place_field(self) -> forms.BoundField | None:
        """The field that asks for the project, where one does."""
        return self["project"] if "project" in self.fields else None

    @property
    def place(self) -> Project | None:
        """The project that was chosen; None where nothing was asked. Only after ``is_valid``."""
        chosen: Project | None = self.cleaned_data.get("project")
        return chosen

    def offer(self, name: str, queryset: QuerySet[Any]) -> None:
        """Set what a field chooses from."""
        field = self.fields[name]
        assert isinstance(field, forms.ModelChoiceField)
        field.queryset = queryset

    def offer_checkpoints(self, name: str, queryset: QuerySet[Checkpoint]) -> None:
        """Have a field choose from those of the checkpoints that the person sees.

        Those of other projects than the run's say of which; of all, where the run's is asked for.
        """
        field = self.fields[name]
        assert isinstance(field, CheckpointField | AnswerersField)
        field.home = self._home
        self.offer(name, seen_by(self.user, queryset.select_related("project", "endpoint")))

    def focus_first_error(self) -> None:
        """Have the browser put the cursor where something has to be mended."""
        wrong = next((name for name in self.fields if name in self.errors), None)
        if wrong is not None:
            self.fields[wrong].widget.attrs["autofocus"] = True

    @property
    def missing(self) -> str:
        """What has to be installed before this form can be sent; empty when nothing is."""
        return " ".join(
            remedy
            for name, remedy in self.REMEDIES.items()
            if isinstance(field := self.fields.get(name), forms.ModelChoiceField)
            and not len(field.queryset or ())
        )


def _label(checkpoint: Checkpoint, home: Project | None) -> str:
    """The name, that an endpoint serves it, and its project where that is not ``home``."""
    served = "" if checkpoint.has_files else " (endpoint)"
    elsewhere = "" if checkpoint.project == home else f" · {checkpoint.project}"
    return f"{checkpoint}{served}{elsewhere}"


class AnswererSelect(forms.Select):
    """Marks the options that an endpoint serves, so that the page can show their price fields."""

    def create_option(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """One option, marked where an endpoint serves it."""
        option = super().create_option(*args, **kwargs)
        instance = getattr(option["value"], "instance", None)
        if instance is not None and not instance.has_files:
            option["attrs"]["data-endpoint"] = True
        return option


class CheckpointField(_CheckpointField):
    """Chooses a checkpoint."""

    home: Project | None = None

    def label_from_instance(self, obj: Any) -> str:
        """Its name, and where it is."""
        return _label(obj, self.home)


class AnswererField(CheckpointField):
    """Chooses what can answer: checkpoints with files, and models that an endpoint serves."""

    widget = AnswererSelect


class AnswerersField(_CheckpointsField):
    """Chooses several of them."""

    widget = forms.CheckboxSelectMultiple
    home: Project | None = None

    def label_from_instance(self, obj: Any) -> str:
        """Its name, and where it is."""
        return _label(obj, self.home)


def priority_field() -> forms.IntegerField:
    """A run's priority."""
    return forms.IntegerField(
        min_value=LOWEST, max_value=HIGHEST, initial=0, required=False,
        help_text="Higher ones come first; only staff may go above 0.",
    )  # fmt: skip


def devices_field(label: str) -> forms.IntegerField:
    """CUDA devices of one host that a stage is given."""
    return forms.IntegerField(
        min_value=1, max_value=MOST, initial=1, required=False, label=label,
        help_text="GPUs of one host at a time.",
    )  # fmt: skip

"""Forms that launch runs. Each becomes one frozen configuration, or says what is wrong where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.db.models import QuerySet
from pydantic import ValidationError

from distiller.recipe import DEFAULT_FILTERS, FilterChoice, Recipe
from evaluator.protocol import PRESETS, Protocol
from evaluator.protocol import preset as protocol_preset
from webapp.benchmarks.models import Benchmark, PromptSet
from webapp.benchmarks.queries import latest_benchmarks, latest_prompt_sets
from webapp.checkpoints.forms import usable_name
from webapp.checkpoints.models import Checkpoint
from webapp.checkpoints.queries import runnable, with_files
from webapp.core.forms import speak

if TYPE_CHECKING:
    _CheckpointField = forms.ModelChoiceField[Checkpoint]
else:
    _CheckpointField = forms.ModelChoiceField

LONGEST_TRACE_TOKENS = 32768
LONGEST_TOKENS = 1_048_576  # more than any model's context

PRESET_CHOICES = [
    ("quick", "quick: n = 4, at most 4,096 tokens"),
    ("r1", "r1: the DeepSeek-R1 protocol, n by benchmark, 32,768 tokens"),
    ("r1-cons64", "r1-cons64: the same with n = 64 everywhere"),
    ("greedy", "greedy: n = 1, temperature 0"),
]

THINKING_CHOICES = [
    ("tags", "<think> … </think>"),
    ("none", "none: the whole response is the answer part"),
]


def field_sentences(error: ValidationError) -> list[tuple[str, str]]:
    """Return (form field or "", sentence) for every complaint of a configuration."""
    fields = {
        "teacher": "teacher", "base": "base", "student": "student", "set": "prompt_set",
        "limit": "prompts_limit", "samples": "samples", "temperature": "temperature",
        "max_tokens": "max_tokens", "epochs": "epochs", "learning_rate": "learning_rate",
        "batch_size": "batch_size", "max_length_tokens": "max_length_tokens", "prompt": "prompt",
        "benchmarks": "benchmarks",
    }  # fmt: skip
    found = []
    for problem in error.errors():
        leaf = str(problem["loc"][-1]) if problem["loc"] else ""
        message = problem["msg"].removeprefix("Value error, ")
        found.append((fields.get(leaf, ""), f"{leaf.replace('_', ' ')}: {message}."))
    return found


class LaunchForm(forms.Form):
    """A form whose choices come from what is installed."""

    # Field → what to do where it has nothing to choose from.
    REMEDIES = {
        "teacher": "Upload a teacher or register an endpoint first: neither is here.",
        "base": "Upload a base first: no checkpoint with files is here.",
        "checkpoint": "Upload a checkpoint or register an endpoint first: neither is here.",
        "prompt_set": "Import a prompt set first: none is installed.",
        "benchmark": "Import a benchmark first: none is installed.",
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        speak(self.fields)

    def offer(self, name: str, queryset: QuerySet[Any]) -> None:
        """Set what a field chooses from."""
        field = self.fields[name]
        assert isinstance(field, forms.ModelChoiceField)
        field.queryset = queryset

    @property
    def missing(self) -> str:
        """What has to be installed before this form can be sent; empty when nothing is."""
        return " ".join(
            remedy
            for name, remedy in self.REMEDIES.items()
            if isinstance(field := self.fields.get(name), forms.ModelChoiceField)
            and not len(field.queryset or ())
        )


class AnswererField(_CheckpointField):
    """Chooses what can answer: checkpoints with files, and models that an endpoint serves."""

    def label_from_instance(self, obj: Any) -> str:
        """The name, and where it is when it is not here."""
        return str(obj) if obj.has_files else f"{obj} (endpoint)"


class DistillationForm(LaunchForm):
    """Teacher, base, prompts and what to measure; the rest has defaults that work."""

    teacher = AnswererField(
        Checkpoint.objects.none(),
        empty_label="choose…",
        help_text="Writes the reasoning traces: a checkpoint, or an endpoint's model.",
    )
    base = forms.ModelChoiceField(
        Checkpoint.objects.none(),
        empty_label="choose…",
        help_text="Is trained on them and becomes the student.",
    )
    student = forms.CharField(
        max_length=200, label="Student's name", help_text="A new checkpoint gets this name."
    )
    prompt_set = forms.ModelChoiceField(
        PromptSet.objects.none(),
        empty_label="choose…",
        label="Prompt set",
        help_text="The problems the teacher is asked.",
    )
    samples = forms.IntegerField(
        min_value=1, max_value=256, initial=4, label="Samples per prompt",
        help_text="Traces drawn for each problem.",
    )  # fmt: skip
    epochs = forms.FloatField(
        min_value=0.01, max_value=10_000, initial=2, help_text="Passes over the kept traces."
    )
    benchmarks = forms.ModelMultipleChoiceField(
        Benchmark.objects.none(), required=False, widget=forms.CheckboxSelectMultiple,
        help_text="Base, teacher and student are measured on these at the end.",
    )  # fmt: skip
    protocol = forms.ChoiceField(choices=PRESET_CHOICES, initial="quick")

    learning_rate = forms.FloatField(min_value=1e-9, max_value=1, initial=1e-5)
    batch_size = forms.IntegerField(
        min_value=1, max_value=65_536, initial=32, label="Batch size",
        help_text="Sequences per optimizer step.",
    )  # fmt: skip
    max_length_tokens = forms.IntegerField(
        min_value=8, max_value=LONGEST_TOKENS, required=False, label="Longest training sequence",
        help_text="Tokens. Empty: the base's context, at most 32,768.",
    )  # fmt: skip
    temperature = forms.FloatField(
        min_value=0, max_value=2, initial=0.8, label="Trace temperature",
        help_text="0.6 to 1.0 is usual; 0 draws the same trace every time.",
    )  # fmt: skip
    max_tokens = forms.IntegerField(
        min_value=1, max_value=LONGEST_TOKENS, required=False, label="Longest trace",
        help_text="Tokens. Empty: the teacher's context, at most 32,768.",
    )  # fmt: skip
    prompts_limit = forms.IntegerField(
        min_value=1, required=False, label="Use only the first prompts",
        help_text="Empty: the whole prompt set.",
    )  # fmt: skip
    thinking = forms.ChoiceField(choices=THINKING_CHOICES, initial="tags")
    prompt = forms.CharField(
        initial="{problem}", widget=forms.Textarea(attrs={"rows": 2}), label="Prompt text",
        help_text="Text around a problem; must hold {problem}.", strip=False,
    )  # fmt: skip
    filters = forms.MultipleChoiceField(
        choices=[(f.name, f.name.replace("_", " ")) for f in DEFAULT_FILTERS], required=False,
        initial=[f.name for f in DEFAULT_FILTERS], widget=forms.CheckboxSelectMultiple,
        help_text="A trace that a filter objects to is dropped with the reason.",
    )  # fmt: skip
    decontaminate = forms.BooleanField(
        required=False, initial=True, label="Drop prompts that stand in an installed benchmark",
        help_text="Switched off, every score of the student is marked.",
    )  # fmt: skip

    MAIN = (
        "teacher", "base", "student", "prompt_set", "samples", "epochs", "benchmarks", "protocol",
    )  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.offer("teacher", runnable())
        self.offer("base", with_files())
        self.offer("prompt_set", latest_prompt_sets())
        self.offer("benchmarks", latest_benchmarks())

    def main_fields(self) -> list[forms.BoundField]:
        """The fields everybody fills in."""
        return [self[name] for name in self.MAIN]

    def advanced_fields(self) -> list[forms.BoundField]:
        """The fields whose defaults usually do."""
        return [self[name] for name in self.fields if name not in self.MAIN]

    @property
    def advanced_has_errors(self) -> bool:
        """Whether the folded part must be shown open."""
        return any(bound.errors for bound in self.advanced_fields())

    def clean_student(self) -> str:
        """A student's name must be usable and new: a checkpoint is never overwritten."""
        return usable_name(self.cleaned_data["student"], "student")

    def clean(self) -> dict[str, Any]:
        """Build the recipe, so that its own complaints stand beside the fields."""
        data: dict[str, Any] = super().clean() or {}
        if self.errors:
            return data
        try:
            data["recipe"] = self._recipe(data)
        except ValidationError as error:
            for field, sentence in field_sentences(error):
                self.add_error(field or None, sentence)
        return data

    def _recipe(self, data: dict[str, Any]) -> Recipe:
        teacher, base = data["teacher"], data["base"]
        thinking = {"kind": data["thinking"]}
        protocol = protocol_preset(data["protocol"])
        chosen = {f.name: f for f in DEFAULT_FILTERS}
        filters: list[FilterChoice] = [chosen[name] for name in data["filters"]]
        return Recipe.model_validate(
            {
                "name": data["student"],
                "teacher": teacher.name,
                "base": base.name,
                "student": data["student"],
                "prompts": {"set": data["prompt_set"].name, "limit": data["prompts_limit"]},
                "prompt": data["prompt"],
                "thinking": thinking,
                "generation": {
                    "samples": data["samples"],
                    "sampling": {
                        "temperature": data["temperature"],
                        "top_p": 0.95,
                        "max_tokens": data["max_tokens"] or _context(teacher),
                    },
                },
                "filters": [choice.model_dump() for choice in filters],
                "decontaminate": data["decontaminate"],
                "training": {
                    "epochs": data["epochs"],
                    "learning_rate": data["learning_rate"],
                    "batch_size": data["batch_size"],
                    "max_length_tokens": data["max_length_tokens"] or _context(base),
                },
                "evaluation": {
                    "benchmarks": sorted({b.name for b in data["benchmarks"]}),
                    "protocol": protocol.model_copy(
                        update={"thinking": protocol.thinking.model_copy(update=thinking)}
                    ).model_dump(),
                },
            }
        )


def _context(checkpoint: Checkpoint) -> int:
    """The longest sequence a checkpoint can take, at most the paper's 32,768 tokens."""
    return min(checkpoint.context_tokens or LONGEST_TRACE_TOKENS, LONGEST_TRACE_TOKENS)


class EvaluationForm(LaunchForm):
    """checkpoint × benchmark × protocol."""

    checkpoint = AnswererField(
        Checkpoint.objects.none(),
        empty_label="choose…",
        label="Checkpoint or endpoint",
    )
    benchmark = forms.ModelChoiceField(Benchmark.objects.none(), empty_label="choose…")
    protocol = forms.ChoiceField(choices=PRESET_CHOICES, initial="quick")
    samples = forms.IntegerField(
        min_value=1, max_value=1024, required=False, label="Samples per problem (n)",
        help_text="Empty: what the protocol says.",
    )  # fmt: skip
    engine = forms.ChoiceField(
        choices=[("transformers", "transformers"), ("vllm", "vLLM")], initial="transformers",
        help_text="Of checkpoints; an endpoint is asked where it is. vLLM needs its package on "
        "the worker's machine.",
    )  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.offer("checkpoint", runnable())
        self.offer("benchmark", latest_benchmarks())

    @property
    def resolved_protocol(self) -> Protocol:
        """The preset with n replaced where it was given. Only after ``is_valid``."""
        chosen = PRESETS[self.cleaned_data["protocol"]]
        samples = self.cleaned_data["samples"]
        return chosen if samples is None else chosen.model_copy(update={"samples": samples})


class ImportForm(LaunchForm):
    """Completions made elsewhere: a file of them, whose they are, and what they answer."""

    benchmark = forms.ModelChoiceField(Benchmark.objects.none(), empty_label="choose…")
    checkpoint = forms.CharField(
        max_length=200,
        help_text="Who wrote them: a name; a checkpoint without files is made where none has it.",
    )
    file = forms.FileField(
        allow_empty_file=True,
        help_text="JSON lines, also gzipped (.gz): problem_id, completion and, where there are "
        "several a problem, sample; one model a file.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.offer("benchmark", latest_benchmarks())

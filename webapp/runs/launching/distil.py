"""The distillation's form: four steps, a few visible fields each, the rest with defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django import forms
from pydantic import ValidationError

from distiller.recipe import DEFAULT_FILTERS, Lora, Recipe, Training
from webapp.benchmarks.models import Benchmark, PromptSet
from webapp.benchmarks.queries import latest_benchmarks, latest_prompt_sets
from webapp.checkpoints.forms import usable_name
from webapp.checkpoints.models import Checkpoint
from webapp.checkpoints.queries import runnable, with_files
from webapp.core.errors import UserError
from webapp.core.models import User
from webapp.runs.devices import Devices
from webapp.runs.launching import chats, filter_fields, mapping, recipe_yaml
from webapp.runs.launching.base import (
    ENGINE_CHOICES,
    LONGEST_TOKENS,
    PROTOCOL_CHOICES,
    AnswererField,
    CheckpointField,
    LaunchForm,
    devices_field,
    priority_field,
)

LONGEST_TRACE_TOKENS = 32768
_TRAINING = Training()
_LORA = Lora()


@dataclass(frozen=True, slots=True)
class StepPlan:
    """A step of the form: what is visible, and what is folded away in groups."""

    title: str
    about: str
    main: tuple[str, ...]
    advanced: tuple[tuple[str, tuple[str, ...]], ...]  # (class of a group or "", fields)
    filters: bool = False


STEPS = (
    StepPlan(
        "Teacher", "Writes the reasoning traces.", ("teacher",),
        (
            ("for-local", ("engine", "generate_devices")),
            ("", ("mode", "temperature", "top_p", "max_tokens", "stop_after")),
            ("for-endpoint", ("price_input", "price_output", "price_currency")),
        ),
    ),
    StepPlan(
        "Prompts and filters", "What the teacher is asked, and which answers are worth learning.",
        ("prompt_set", "samples"),
        (("", ("prompts_limit", "thinking", "thinking_forced", "decontaminate", "prompt")),),
        filters=True,
    ),
    StepPlan(
        "Student and training", "The base is trained on the traces that are left.",
        ("base", "student", "epochs"),
        (
            ("", ("method",)),
            ("for-lora", ("lora_rank", "lora_alpha", "lora_dropout")),
            ("", ("learning_rate", "batch_size", "warmup_ratio", "max_length_tokens", "too_long",
                  "dtype", "micro_batch_tokens", "packing", "gradient_checkpointing",
                  "held_out_share", "train_devices", "chat_template", "rope_kind")),
            ("for-rope", ("rope_factor", "rope_original")),
            ("", ("general_file",)),
            ("", ("general_weight", "traces_weight")),
        ),
    ),
    StepPlan(
        "Evaluations", "Base, teacher and student are measured at the end, alike.",
        ("benchmarks", "protocol"),
        (
            ("", ("evaluation_samples", "evaluation_max_tokens", "roles", "evaluation_engine",
                  "evaluate_devices", "priority", "name")),
            ("whole", ("more",)),
        ),
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FilterRow:
    """A filter's switch with its parameters, for the page."""

    name: str
    about: str
    checked: bool
    fields: list[forms.BoundField]
    has_errors: bool

    @property
    def label(self) -> str:
        """Its name in words."""
        return self.name.replace("_", " ")


@dataclass(frozen=True, slots=True)
class Step:
    """A step with its bound fields."""

    number: int
    plan: StepPlan
    main: list[forms.BoundField]
    groups: list[tuple[str, list[forms.BoundField]]]
    filters: list[FilterRow]
    open: bool  # the folded part holds an error or a note


class DistillationForm(LaunchForm):
    """A recipe, field by field. ``cleaned_data["recipe"]`` is it, once the form is valid."""

    teacher = AnswererField(
        Checkpoint.objects.none(), empty_label="choose…",
        label="Teacher",
        help_text="A checkpoint, or an endpoint's model.",
    )  # fmt: skip
    engine = forms.ChoiceField(
        choices=ENGINE_CHOICES, initial="transformers",
        help_text="Of a teacher that runs here; vLLM is faster and needs its package there.",
    )  # fmt: skip
    mode = forms.ChoiceField(
        choices=[
            ("plain", "plain: it thinks at length of its own accord"),
            ("few_shot", "few-shot: shown a long worked example"),
            ("reflection", "reflection: asked to reflect and to verify"),
        ],
        initial="plain", label="Way of asking",
        help_text="The paper's cold start, for teachers without long thoughts of their own.",
    )  # fmt: skip
    temperature = forms.FloatField(
        min_value=0, max_value=2, initial=0.8, label="Trace temperature",
        help_text="0.6 to 1.0 is usual; 0 draws the same trace every time.",
    )  # fmt: skip
    top_p = forms.FloatField(
        min_value=1e-9, max_value=1, initial=0.95, label="Top p",
        help_text="Of the likeliest tokens, the share of the mass that is drawn from.",
    )  # fmt: skip
    max_tokens = forms.IntegerField(
        min_value=1, max_value=LONGEST_TOKENS, required=False, label="Longest trace",
        help_text="Tokens. Empty: the teacher's context, at most 32,768.",
    )  # fmt: skip
    stop_after = forms.IntegerField(
        min_value=1, max_value=256, required=False, label="Right traces that are enough",
        help_text="A prompt that has so many is asked no more. Empty: all samples are drawn.",
    )  # fmt: skip
    generate_devices = devices_field("GPUs for the teacher")
    price_input = forms.FloatField(
        min_value=0, max_value=1e6, required=False, label="Price of a million prompt tokens",
        help_text="Empty: as the endpoint is registered.",
    )  # fmt: skip
    price_output = forms.FloatField(
        min_value=0, max_value=1e6, required=False, label="Price of a million generated tokens",
        help_text="Empty: as the endpoint is registered.",
    )  # fmt: skip
    price_currency = forms.RegexField(
        "^[A-Z]{3}$", initial="USD", required=False, label="Currency",
        help_text="Three capital letters.",
        error_messages={"invalid": "Currency: give three capital letters, as EUR."},
    )  # fmt: skip

    prompt_set = forms.ModelChoiceField(
        PromptSet.objects.none(), empty_label="choose…", label="Prompt set",
        help_text="The problems the teacher is asked.",
    )  # fmt: skip
    samples = forms.IntegerField(
        min_value=1, max_value=256, initial=4, label="Samples per prompt",
        help_text="Traces drawn for each problem.",
    )  # fmt: skip
    prompts_limit = forms.IntegerField(
        min_value=1, max_value=10**9, required=False, label="Use only the first prompts",
        help_text="Empty: the whole prompt set.",
    )  # fmt: skip
    thinking = forms.ChoiceField(
        choices=[
            ("tags", "between <think> and </think>"),
            ("field", "in a field of the endpoint's reply"),
            ("none", "none: the whole response is the answer part"),
        ],
        initial="tags", label="Thoughts stand",
    )  # fmt: skip
    thinking_forced = forms.BooleanField(
        required=False, label="Begin each response with the opening tag",
        help_text="For models that leave it out; not possible at an endpoint.",
    )  # fmt: skip
    decontaminate = forms.BooleanField(
        required=False, initial=True, label="Drop prompts that stand in an installed benchmark",
        help_text="Switched off, every score of the student is marked as not comparable.",
    )  # fmt: skip
    prompt = forms.CharField(
        initial="{problem}", widget=forms.Textarea(attrs={"rows": 2}), label="Prompt text",
        help_text="Text around a problem; must hold {problem}.", strip=False,
    )  # fmt: skip
    filters = forms.MultipleChoiceField(
        choices=[(name, name.replace("_", " ")) for name in filter_fields.offered()],
        required=False,
        initial=[f.name for f in DEFAULT_FILTERS], widget=forms.CheckboxSelectMultiple,
    )  # fmt: skip
    filters_order = forms.CharField(
        required=False, widget=forms.HiddenInput, max_length=500,
        initial=",".join(f.name for f in DEFAULT_FILTERS),
    )  # fmt: skip

    base = CheckpointField(
        Checkpoint.objects.none(), empty_label="choose…",
        label="Base",
        help_text="Is trained on the traces and becomes the student.",
    )  # fmt: skip
    student = forms.CharField(
        max_length=200, label="Student's name", help_text="A new checkpoint gets this name."
    )
    epochs = forms.FloatField(
        min_value=0.01, max_value=10_000, initial=_TRAINING.epochs,
        help_text="Passes over the kept traces.",
    )  # fmt: skip
    method = forms.ChoiceField(
        choices=[("full", "full: every weight"), ("lora", "LoRA: adapters, merged at the end")],
        initial="full", help_text="LoRA needs a fraction of the memory.",
    )  # fmt: skip
    lora_rank = forms.IntegerField(
        min_value=1, max_value=1024, initial=_LORA.rank, required=False, label="LoRA rank"
    )
    lora_alpha = forms.FloatField(
        min_value=1e-6, max_value=1e6, initial=_LORA.alpha, required=False, label="LoRA alpha",
        help_text="Adapters' output is scaled by alpha / rank.",
    )  # fmt: skip
    lora_dropout = forms.FloatField(
        min_value=0, max_value=0.99, initial=_LORA.dropout, required=False, label="LoRA dropout"
    )
    learning_rate = forms.FloatField(min_value=1e-9, max_value=1, initial=_TRAINING.learning_rate)
    batch_size = forms.IntegerField(
        min_value=1, max_value=65_536, initial=_TRAINING.batch_size, label="Batch size",
        help_text="Sequences per optimizer step.",
    )  # fmt: skip
    warmup_ratio = forms.FloatField(
        min_value=0, max_value=1, initial=_TRAINING.warmup_ratio, label="Warm-up",
        help_text="Share of the steps in which the learning rate rises.",
    )  # fmt: skip
    max_length_tokens = forms.IntegerField(
        min_value=8, max_value=LONGEST_TOKENS, required=False, label="Longest training sequence",
        help_text="Tokens. Empty: the base's context, at most 32,768.",
    )  # fmt: skip
    too_long = forms.ChoiceField(
        choices=[("drop", "drop it"), ("truncate", "cut it off: teaches not to end")],
        initial="drop", label="A longer one",
    )  # fmt: skip
    dtype = forms.ChoiceField(
        choices=[("float32", "float32"), ("bfloat16", "bfloat16")], initial="float32",
        label="Arithmetic", help_text="bfloat16 is usual on GPUs.",
    )  # fmt: skip
    micro_batch_tokens = forms.IntegerField(
        min_value=1, max_value=LONGEST_TOKENS, initial=_TRAINING.micro_batch_tokens,
        label="Tokens at once", help_text="Through the model, per process.",
    )  # fmt: skip
    packing = forms.BooleanField(
        required=False, initial=True, label="Pack several sequences together, isolated"
    )
    gradient_checkpointing = forms.BooleanField(
        required=False, initial=True, label="Gradient checkpointing",
        help_text="Less memory, a third more time.",
    )  # fmt: skip
    held_out_share = forms.FloatField(
        min_value=0, max_value=0.5, initial=0, label="Held out",
        help_text="Share of the problems on which only the loss is measured.",
    )  # fmt: skip
    train_devices = devices_field("GPUs for training")
    chat_template = forms.CharField(
        required=False, strip=False, widget=forms.Textarea(attrs={"rows": 2}),
        label="Chat template", empty_value=None,
        help_text="Jinja, for a base that has none; “none” for plain text. Empty: the base's own.",
    )  # fmt: skip
    rope_kind = forms.ChoiceField(
        choices=[("", "as the base has it"), ("yarn", "YaRN"), ("linear", "linear"),
                 ("dynamic", "dynamic")],
        required=False, label="Context", help_text="Stretch it for sequences that are longer.",
    )  # fmt: skip
    rope_factor = forms.FloatField(
        min_value=1, max_value=1024, required=False, label="Stretched by",
        help_text="More than 1: so many times the positions.",
    )  # fmt: skip
    rope_original = forms.IntegerField(
        min_value=1, max_value=LONGEST_TOKENS, required=False, label="Positions it was trained on",
        help_text="Empty: as its config says.",
    )  # fmt: skip
    general_file = forms.FileField(
        required=False,
        allow_empty_file=True,
        label="General chats",
        help_text="Mixed with the traces, so that the student stays a conversationalist: JSON "
        "lines of {messages} or {prompt, response}, also .gz.",
    )
    general_kept = forms.CharField(required=False, widget=forms.HiddenInput, max_length=100)
    general_weight = forms.FloatField(
        min_value=1e-6, max_value=1e6, initial=1, required=False, label="Their part",
        help_text="Of the mix; the paper's is 1 to 3.",
    )  # fmt: skip
    traces_weight = forms.FloatField(
        min_value=1e-6, max_value=1e6, initial=3, label="The traces' part",
        help_text="Counts only where there are general chats.",
    )  # fmt: skip

    benchmarks = forms.ModelMultipleChoiceField(
        Benchmark.objects.none(), required=False, widget=forms.CheckboxSelectMultiple,
        to_field_name="name", help_text="None: the student is trained and not measured.",
    )  # fmt: skip
    protocol = forms.ChoiceField(choices=PROTOCOL_CHOICES, initial="quick")
    evaluation_samples = forms.IntegerField(
        min_value=1, max_value=1024, required=False, label="Samples per problem (n)",
        help_text="Empty: as the protocol says.",
    )  # fmt: skip
    evaluation_max_tokens = forms.IntegerField(
        min_value=1, max_value=LONGEST_TOKENS, required=False, label="Longest answer",
        help_text="Tokens. Empty: as the protocol says.",
    )  # fmt: skip
    roles = forms.MultipleChoiceField(
        choices=[("student", "student"), ("base", "base"), ("teacher", "teacher")],
        initial=["student", "base", "teacher"], widget=forms.CheckboxSelectMultiple,
        label="Measured", required=False,
    )  # fmt: skip
    evaluation_engine = forms.ChoiceField(
        choices=[("", "the same as the traces'"), *ENGINE_CHOICES], required=False,
        label="Engine of evaluations",
    )  # fmt: skip
    evaluate_devices = devices_field("GPUs for evaluations")
    priority = priority_field()
    name = forms.CharField(
        max_length=200, required=False, label="Run's name", help_text="Empty: the student's."
    )
    more = forms.CharField(
        required=False, widget=forms.Textarea(attrs={"rows": 3, "spellcheck": "false"}),
        label="Other fields of the recipe, as YAML",
        help_text="For what has no field here, as generation.seed; stands over the preset.",
    )  # fmt: skip

    def __init__(self, user: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(user, *args, **kwargs)
        self.fields |= filter_fields.form_fields()
        self.offer_checkpoints("teacher", runnable())
        self.offer_checkpoints("base", with_files())
        self.offer("prompt_set", latest_prompt_sets())
        self.offer("benchmarks", latest_benchmarks())

    # --- for the page

    def steps(self) -> list[Step]:
        """The four steps with their fields."""
        return [self._step(number, plan) for number, plan in enumerate(STEPS, start=1)]

    def _step(self, number: int, plan: StepPlan) -> Step:
        groups = [(kind, [self[name] for name in names]) for kind, names in plan.advanced]
        rows = self._filter_rows() if plan.filters else []
        folded = [bound for _, group in groups for bound in group]
        troubled = any(bound.errors or bound.name in self.notes for bound in folded)
        troubled = troubled or any(row.has_errors for row in rows)
        troubled = troubled or (plan.filters and bool(self["filters"].errors))
        return Step(number, plan, [self[name] for name in plan.main], groups, rows, troubled)

    def _filter_rows(self) -> list[FilterRow]:
        on = set(self["filters"].value() or ())
        rows = []
        for name in filter_fields.offered():
            bound = [self[each.field] for each in filter_fields.parameters(name)]
            wrong = any(each.errors for each in bound)
            rows.append(FilterRow(name, filter_fields.about(name), name in on, bound, wrong))
        return rows

    def main_fields(self) -> list[forms.BoundField]:
        """The fields everybody fills in."""
        return [self[name] for plan in STEPS for name in plan.main]

    # --- from the form to the recipe

    @property
    def devices(self) -> Devices:
        """What the stages' children are given. Only after ``is_valid``."""
        data = self.cleaned_data
        return Devices(
            **{kind: data[f"{kind}_devices"] or 1 for kind in ("generate", "train", "evaluate")}
        )

    def clean_student(self) -> str:
        """A student's name must be usable and new: a checkpoint is never overwritten."""
        return usable_name(self.cleaned_data["student"], "student")

    def clean_general_kept(self) -> str:
        """Chats that were uploaded earlier, while something else was to be mended."""
        path = str(self.cleaned_data["general_kept"] or "")
        if path and not chats.may_use(self.user, path):
            self.add_error("general_file", "General chats: they are gone; upload them again.")
            return ""
        return path

    def clean_more(self) -> dict[str, Any]:
        """The fields that have none of their own here."""
        try:
            return recipe_yaml.read_fields(self.cleaned_data["more"])
        except recipe_yaml.YamlError as error:
            raise forms.ValidationError(
                [f"Other fields: {each}" for each in error.mistakes]
            ) from error

    def clean(self) -> dict[str, Any]:
        """Build the recipe, so that its own complaints stand beside the fields."""
        data: dict[str, Any] = super().clean() or {}
        self._keep_chats(data)
        if isinstance(data.get("more"), dict):
            for name in mapping.twice_given(data["more"], general=bool(data.get("general_kept"))):
                self.add_error(
                    "more", f"Other fields: {name} has a field of its own; set it there."
                )
        _, complaints = filter_fields.choices_of(data)
        for field, sentence in complaints.items():
            self.add_error(field if field in self.fields else "filters", sentence)
        if self.errors:
            return data
        try:
            data["recipe"] = self.recipe_of(data)
        except ValidationError as error:
            for problem in error.errors(include_url=False):
                self._complain(problem)
        return data

    def _complain(self, problem: Mapping[str, Any]) -> None:
        """Put a configuration's complaint at its field."""
        loc: Sequence[Any] = problem["loc"]
        said = str(problem["msg"]).removeprefix("Value error, ")
        field = mapping.field_of(loc)
        label = self.fields[field].label or field if field else recipe_yaml.dotted(loc)
        self.add_error(field or "more", f"{str(label).replace('_', ' ').capitalize()}: {said}.")

    def _keep_chats(self, data: dict[str, Any]) -> None:
        """Keep an upload at once, so that it need not be sent again if the form comes back."""
        uploaded = data.pop("general_file", None)
        if not uploaded:
            return
        try:
            data["general_kept"] = chats.keep(uploaded, self.user)
        except UserError as error:
            self.add_error("general_file", error.sentence)
            return
        values: Any = self.data.copy()  # type: ignore[attr-defined]
        values[self.add_prefix("general_kept")] = data["general_kept"]
        self.data = values

    def draft(self) -> Recipe | None:
        """The recipe with whatever can be used of an unfinished form; None where that is none."""
        data = {name: field.initial for name, field in self.fields.items()}
        data |= {name: value for name, value in self.cleaned_data.items() if value is not None}
        data |= {name: "" for name in ("student", "more") if not isinstance(data[name], str)}
        try:
            return self.recipe_of(data | {"more": self.cleaned_data.get("more") or {}})
        except ValidationError:
            return None

    def recipe_of(self, data: Mapping[str, Any]) -> Recipe:
        """The recipe of cleaned values. Raises pydantic's ValidationError."""
        teacher, base = data.get("teacher"), data.get("base")
        served = teacher is not None and not teacher.has_files
        values = dict(data) | {
            "teacher": teacher.name if teacher else "",
            "base": base.name if base else "",
            "student": data.get("student") or "",
            "prompt_set": data["prompt_set"].name if data.get("prompt_set") else "",
            "engine": "openai" if served else data["engine"],
            "max_tokens": data.get("max_tokens") or context_of(teacher),
            "max_length_tokens": data.get("max_length_tokens") or context_of(base),
            "benchmarks": {each.name for each in data.get("benchmarks") or ()},
            "general_weight": data.get("general_weight") or 1.0,
        }
        for name in ("rank", "alpha", "dropout"):
            if values.get(f"lora_{name}") is None:
                values[f"lora_{name}"] = getattr(_LORA, name)
        return Recipe.model_validate(mapping.fields_of(values))


def context_of(checkpoint: Checkpoint | None) -> int:
    """The longest sequence a checkpoint can take, at most the paper's 32,768 tokens."""
    known = checkpoint.context_tokens if checkpoint else None
    return min(known or LONGEST_TRACE_TOKENS, LONGEST_TRACE_TOKENS)

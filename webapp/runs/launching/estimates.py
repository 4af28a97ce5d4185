"""What a launch would take, before it is launched: each figure says what it rests on.

Nothing is invented: lengths and rates are those of earlier stages of the same model on the same
number of devices, in runs that whoever asks may see; where there was none, a figure is a bound or
it is unknown, and says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Self

from django.db.models import Q, QuerySet

from distiller.generation import Tally
from distiller.memory import estimate, size_words
from distiller.recipe import Price, Recipe, Training
from evaluator.errors import StoreError
from evaluator.protocol import samples_for
from webapp.benchmarks.models import Benchmark, PromptSet
from webapp.checkpoints.models import Checkpoint
from webapp.core import store
from webapp.core.models import User
from webapp.core.templatetags.retort import compact, duration
from webapp.endpoints.models import Endpoint
from webapp.projects.access import seen_by
from webapp.runs.devices import Devices
from webapp.runs.launching.distil import DistillationForm
from webapp.runs.launching.evaluate import Column, EvaluationForm
from webapp.runs.models import Stage, State, TrainingPoint

EARLIER = 20  # stages that are looked at, the newest
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of an estimate."""

    name: str
    value: str
    basis: str

    @property
    def is_known(self) -> bool:
        """Whether there is anything to say."""
        return self.value != UNKNOWN


@dataclass(frozen=True, slots=True)
class Past:
    """What earlier stages of one kind did, added up."""

    stages: int = 0
    tokens: int = 0
    units: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float | None:
        """Tokens per second of a whole stage: loading the model, waiting for prompts and all."""
        return self.tokens / self.seconds if self.tokens and self.seconds > 0 else None

    @property
    def length(self) -> float | None:
        """Mean tokens per unit (a trace, a completion)."""
        return self.tokens / self.units if self.tokens and self.units else None

    @property
    def basis(self) -> str:
        """How many there were, in words."""
        return "1 earlier stage" if self.stages == 1 else f"{self.stages} earlier stages"


@dataclass(frozen=True, slots=True)
class Earlier:
    """The stages that a person's estimates rest on: those of runs that they see."""

    stages: QuerySet[Stage]

    @classmethod
    def of(cls, user: User) -> Self:
        """What the person sees."""
        return cls(seen_by(user, Stage.objects.all(), "run__project"))

    def past(self, kind: str, **wanted: Any) -> Past:
        """The newest finished stages of a kind that took one attempt; ``wanted`` filters them."""
        rows = self.stages.filter(
            kind=kind, state=State.FINISHED, started_at__isnull=False, finished_at__isnull=False,
            tokens__gt=0, **wanted,
        ).exclude(shards__attempts__gt=1).order_by("-pk")  # fmt: skip
        newest = list(rows.values_list("tokens", "done", "started_at", "finished_at")[:EARLIER])
        took = [end - start for _, _, start, end in newest if start and end]
        return Past(
            stages=len(newest),
            tokens=sum(row[0] for row in newest),
            units=sum(row[1] for row in newest),
            seconds=sum(each.total_seconds() for each in took),
        )

    def tally(self, teacher: Checkpoint) -> tuple[Tally, int]:
        """What this teacher's newest stages drew, and how many they are."""
        stages = self.stages.filter(kind="generate", config__teacher=teacher.pk)
        newest = list(stages.order_by("-pk").values_list("pk", flat=True)[:EARLIER])
        points = TrainingPoint.objects.filter(stage__in=newest)
        rows = list(points.values_list("stage_id", "values"))
        return Tally.total([values for _, values in rows]), len({stage for stage, _ in rows})

    def kept_share(self, teacher: Checkpoint) -> tuple[float | None, str]:
        """The share of this teacher's traces that filters kept (None: not known), in words."""
        found = self.stages.filter(
            kind="filter", state=State.FINISHED, config__teacher=teacher.pk,
            result__has_key="funnel",
        )  # fmt: skip
        funnels = list(found.order_by("-pk").values_list("result__funnel", flat=True)[:EARLIER])
        drawn = sum(int(each["traces"]) for each in funnels if "traces" in each)
        kept = sum(int(each["kept"]) for each in funnels if "traces" in each)
        if not drawn:
            return None, "all traces kept: none of this teacher were filtered yet"
        return kept / drawn, f"{kept / drawn:.0%} of the traces kept, as in {_stages(len(funnels))}"


# --- a distillation


@dataclass(frozen=True, slots=True)
class Traces:
    """How many traces there will be, and how long."""

    count: int
    completion_tokens: float
    prompt_tokens: float | None
    is_bound: bool  # no trace of this teacher was counted: the longest possible


def of_form(form: DistillationForm) -> list[Figure]:
    """The estimate of a form, whether or not it is complete. After ``is_valid`` was asked."""
    recipe, data = form.draft(), form.cleaned_data
    if recipe is None:
        return []
    kinds = ("generate", "train", "evaluate")
    devices = Devices(**{kind: data.get(f"{kind}_devices") or 1 for kind in kinds})
    return of_distillation(
        recipe, user=form.user, teacher=data.get("teacher"), base=data.get("base"),
        prompt_set=data.get("prompt_set"), benchmarks=list(data.get("benchmarks") or ()),
        devices=devices,
    )  # fmt: skip


def of_distillation(
    recipe: Recipe,
    *,
    user: User,
    teacher: Checkpoint | None,
    base: Checkpoint | None,
    prompt_set: PromptSet | None,
    benchmarks: Sequence[Benchmark] = (),
    devices: Devices,
) -> list[Figure]:
    """Tokens, times, memory and money of a distillation."""
    figures: list[Figure] = []
    earlier = Earlier.of(user)
    traces = None
    if teacher is not None and prompt_set is not None:
        traces, told = _traces(earlier, recipe, teacher, prompt_set)
        figures.append(told)
        figures.append(_generating(earlier, traces, teacher, recipe, devices.generate))
    if base is not None:
        if traces is not None and teacher is not None:
            figures.append(_training(earlier, recipe, traces, teacher, base, devices=devices.train))
        figures.append(_memory(recipe.training, base))
    if benchmarks:
        figures.append(_measuring(recipe, benchmarks))
    if traces is not None and teacher is not None:
        figures += _money(recipe, traces, teacher, benchmarks)
    return figures


def _traces(
    earlier: Earlier, recipe: Recipe, teacher: Checkpoint, prompts: PromptSet
) -> tuple[Traces, Figure]:
    plan = recipe.generation
    asked = min(prompts.prompt_count, recipe.prompts.limit or prompts.prompt_count)
    count, limit = asked * plan.samples, plan.sampling.max_tokens
    tally, stages = earlier.tally(teacher)
    counted = tally.traces - tally.uncounted
    early = "; fewer, as a prompt with enough right traces is asked no more" * bool(plan.stop_after)
    if counted:
        traces = Traces(
            count, min(tally.completion_tokens / counted, limit), tally.prompt_tokens / counted,
            is_bound=False,
        )  # fmt: skip
        basis = (
            f"{asked:,} prompts × {plan.samples} samples × {traces.completion_tokens:,.0f} tokens, "
            f"the mean of this teacher's {counted:,} traces in {_stages(stages)}{early}."
        )
    else:
        traces = Traces(count, limit, None, is_bound=True)
        basis = (
            f"{asked:,} prompts × {plan.samples} samples × {limit:,} tokens, the longest trace: no "
            f"trace of this teacher was counted yet, so this is the most{early}."
        )
    tokens = traces.count * traces.completion_tokens
    least = "at most " if traces.is_bound or plan.stop_after else "about "
    return traces, Figure("Traces", f"{least}{compact(tokens)} tokens", basis)


def _generating(
    earlier: Earlier, traces: Traces, teacher: Checkpoint, recipe: Recipe, devices: int
) -> Figure:
    name = "Time of the traces"
    wanted: dict[str, Any] = {"config__teacher": teacher.pk}
    if teacher.has_files:
        engine = recipe.generation.engine
        wanted |= {"devices__in": (0, devices), "run__config__generation__engine": engine}
    before = earlier.past("generate", **wanted)
    if before.rate is None:
        where = (
            "" if not teacher.has_files else f" with {recipe.generation.engine}, {_gpus(devices)}"
        )
        return Figure(name, UNKNOWN, f"No earlier stage had this teacher{where}.")
    seconds = traces.count * traces.completion_tokens / before.rate
    bound = "at most " if traces.is_bound else "about "
    basis = f"At {before.rate:,.0f} tokens/s, as in {before.basis}; with the workers of that time."
    return Figure(name, bound + duration(seconds), basis)


def _training(
    earlier: Earlier,
    recipe: Recipe,
    traces: Traces,
    teacher: Checkpoint,
    base: Checkpoint,
    *,
    devices: int,
) -> Figure:
    name = "Time of the training"
    before = earlier.past(
        "train", config__base=base.pk, devices__in=(0, devices),
        run__config__training__dtype=recipe.training.dtype,
    )  # fmt: skip
    if before.rate is None:
        return Figure(
            name, UNKNOWN,
            f"No earlier run trained this base in {recipe.training.dtype} with {_gpus(devices)}.",
        )  # fmt: skip
    known, said = earlier.kept_share(teacher)
    share = 1.0 if known is None else known
    length = min(
        traces.completion_tokens + (traces.prompt_tokens or 0), recipe.training.max_length_tokens
    )
    tokens = traces.count * share * length * recipe.training.epochs
    bound = "at most " if traces.is_bound or known is None else "about "
    basis = (
        f"{compact(tokens)} tokens in {recipe.training.epochs:g} epochs ({said}), at "
        f"{before.rate:,.0f} tokens/s as in {before.basis}."
    )
    return Figure(name, bound + duration(tokens / before.rate), basis)


def _memory(training: Training, base: Checkpoint) -> Figure:
    name = "Memory of the training"
    if not base.parameters:
        return Figure(name, UNKNOWN, "The base's number of parameters is not known.")
    try:
        shape = _shape(base)
        found = estimate(shape, base.parameters, training, training.max_length_tokens)
    except (OSError, ValueError, TypeError, AttributeError, ArithmeticError, StoreError):
        return Figure(name, UNKNOWN, "The base's config does not say its shape.")
    return Figure(
        name, f"about {size_words(found.total_bytes)}",
        f"From the base's shape, at the longest sequence: {found.sentence}.",
    )  # fmt: skip


def _shape(base: Checkpoint) -> Any:
    """A configuration as :func:`distiller.memory.estimate` asks it, read without transformers."""
    path = store.fetch(f"{base.path}/config.json")
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    shape = SimpleNamespace(**(config.get("text_config") or config))
    for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"):
        if not isinstance(getattr(shape, name), int):
            raise TypeError(name)
    return SimpleNamespace(get_text_config=lambda: shape)


def _measuring(recipe: Recipe, benchmarks: Sequence[Benchmark]) -> Figure:
    plan = recipe.evaluation
    per_role = sum(
        samples_for(plan.protocol, each.name) * each.problem_count for each in benchmarks
    )
    count = per_role * len(plan.roles)
    return Figure(
        "Evaluations",
        f"{count:,} completions",
        f"{len(benchmarks) * len(plan.roles)} evaluations ({', '.join(plan.roles)} on "
        f"{', '.join(each.title for each in benchmarks)}), at most "
        f"{plan.protocol.sampling.max_tokens:,} tokens each.",
    )


def _money(
    recipe: Recipe, traces: Traces, teacher: Checkpoint, benchmarks: Sequence[Benchmark]
) -> list[Figure]:
    if teacher.has_files:
        return []
    price = recipe.generation.price or _endpoints_price(teacher)
    if price is None:
        return [Figure("Price of the teacher", UNKNOWN, "Neither recipe nor endpoint has one.")]
    prompts = traces.prompt_tokens or 0
    one = prompts * price.input_per_million + traces.completion_tokens * price.output_per_million
    value = f"{traces.count * one / 1e6:,.2f} {price.currency}"
    missing = "" if traces.prompt_tokens is not None else "; the prompts' tokens are not counted in"
    measured = (
        "; measuring the teacher costs more" if benchmarks and "teacher" in recipe.evaluation.roles
        else ""
    )  # fmt: skip
    return [
        Figure(
            "Price of the traces",
            f"{'at most' if traces.is_bound else 'about'} {value}",
            f"{price.input_per_million:g} and {price.output_per_million:g} {price.currency} per "
            f"million prompt and generated tokens{missing}{measured}.",
        )
    ]


def _endpoints_price(teacher: Checkpoint) -> Price | None:
    endpoint = Endpoint.objects.filter(checkpoint=teacher).first()
    if endpoint is None or (endpoint.input_price is None and endpoint.output_price is None):
        return None
    return Price(
        input_per_million=endpoint.input_price or 0, output_per_million=endpoint.output_price or 0
    )


# --- evaluations


@dataclass(frozen=True, slots=True)
class Plan:
    """What an evaluation form asks for, before anything is generated."""

    checkpoints: list[Checkpoint]
    columns: list[Column]
    temperature: float
    max_tokens: int
    times: list[Figure]  # a line for each checkpoint

    @property
    def evaluations(self) -> int:
        """Checkpoints × benchmarks."""
        return len(self.checkpoints) * len(self.columns)

    @property
    def completions(self) -> int:
        """Of all evaluations."""
        return len(self.checkpoints) * sum(each.completions for each in self.columns)


def of_evaluations(form: EvaluationForm) -> Plan | None:
    """The plan of a form after ``is_valid`` was asked; None before both sides are chosen."""
    data = form.cleaned_data
    chosen, columns = list(data.get("checkpoints") or ()), form.columns()
    if not chosen or not columns:
        return None
    sampling = form.resolved_protocol.sampling
    earlier = Earlier.of(form.user)
    return Plan(
        chosen, columns, sampling.temperature, sampling.max_tokens,
        [
            _answering(
                earlier, each, columns, sampling.max_tokens, devices=data.get("devices") or 1,
                engine=data.get("engine") or "transformers",
            )
            for each in chosen
        ],
    )  # fmt: skip


def _answering(
    earlier: Earlier,
    checkpoint: Checkpoint,
    columns: Iterable[Column],
    limit: int,
    *,
    devices: int,
    engine: str,
) -> Figure:
    wanted = Q(evaluation__checkpoint=checkpoint)
    engine = engine if checkpoint.has_files else "openai"
    before = earlier.past(
        "evaluate", pk__in=Stage.objects.filter(wanted), config__engine=engine,
        devices__in=(0, devices),
    )  # fmt: skip
    count = sum(each.completions for each in columns)
    if before.rate is None or before.length is None:
        return Figure(str(checkpoint), UNKNOWN, f"not yet measured with {engine}, {_gpus(devices)}")
    length = min(before.length, limit)
    return Figure(
        str(checkpoint),
        "about " + duration(count * length / before.rate),
        f"{length:,.0f} tokens a completion and {before.rate:,.0f} tokens/s, as in {before.basis}",
    )


# --- words


def _stages(count: int) -> str:
    return "1 earlier run" if count == 1 else f"{count} earlier runs"


def _gpus(count: int) -> str:
    return "1 device" if count == 1 else f"{count} devices"

"""The forms of evaluations: several checkpoints × several benchmarks, and completions in a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django import forms

from evaluator import graders
from evaluator.metrics import CONSENSUS_K
from evaluator.protocol import PRESETS, Protocol, samples_for
from webapp.benchmarks.models import Benchmark
from webapp.benchmarks.queries import latest_benchmarks
from webapp.checkpoints.models import Checkpoint
from webapp.checkpoints.queries import runnable
from webapp.core.models import User
from webapp.runs.launching.base import (
    ENGINE_CHOICES,
    LONGEST_TOKENS,
    PROTOCOL_CHOICES,
    AnswerersField,
    LaunchForm,
    devices_field,
    priority_field,
)

MOST_EVALUATIONS = 200  # of one run


@dataclass(frozen=True, slots=True)
class Column:
    """What is measured on one benchmark, before anything is generated."""

    benchmark: Benchmark
    samples: int
    metrics: list[str]
    completions: int  # of one checkpoint


class EvaluationForm(LaunchForm):
    """checkpoints × benchmarks under one protocol."""

    checkpoints = AnswerersField(
        Checkpoint.objects.none(), label="Checkpoints and endpoints",
        help_text="Each is measured on each benchmark.",
    )  # fmt: skip
    benchmarks = forms.ModelMultipleChoiceField(
        Benchmark.objects.none(), widget=forms.CheckboxSelectMultiple
    )
    protocol = forms.ChoiceField(choices=PROTOCOL_CHOICES, initial="quick")
    samples = forms.IntegerField(
        min_value=1, max_value=1024, required=False, label="Samples per problem (n)",
        help_text="Empty: what the protocol says.",
    )  # fmt: skip
    max_tokens = forms.IntegerField(
        min_value=1, max_value=LONGEST_TOKENS, required=False, label="Longest answer",
        help_text="Tokens. Empty: what the protocol says.",
    )  # fmt: skip
    engine = forms.ChoiceField(
        choices=ENGINE_CHOICES, initial="transformers",
        help_text="Of checkpoints; an endpoint is asked where it is. vLLM needs its package on "
        "the worker's machine.",
    )  # fmt: skip
    devices = devices_field("GPUs for each model")
    priority = priority_field()

    MAIN = ("project", "checkpoints", "benchmarks", "protocol", "samples")

    def __init__(self, user: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(user, *args, **kwargs)
        self.offer_checkpoints("checkpoints", runnable())
        self.offer("benchmarks", latest_benchmarks())

    def main_fields(self) -> list[forms.BoundField]:
        """The fields everybody fills in."""
        return [self[name] for name in self.MAIN if name in self.fields]

    def advanced_fields(self) -> list[forms.BoundField]:
        """The fields whose defaults usually do."""
        return [self[name] for name in self.fields if name not in self.MAIN]

    @property
    def advanced_has_errors(self) -> bool:
        """Whether the folded part must be shown open."""
        return any(bound.errors for bound in self.advanced_fields())

    def clean(self) -> dict[str, Any]:
        """Bound what one run may hold."""
        data: dict[str, Any] = super().clean() or {}
        count = len(data.get("checkpoints") or ()) * len(data.get("benchmarks") or ())
        if count > MOST_EVALUATIONS:
            self.add_error(
                "checkpoints",
                f"Checkpoints and endpoints: {count} evaluations are more than "
                f"{MOST_EVALUATIONS}; choose fewer, or launch several runs.",
            )
        return data

    @staticmethod
    def values_of(config: Mapping[str, Any], benchmarks: Iterable[str]) -> dict[str, Any]:
        """The values of an earlier run's protocol, as far as the form can say it."""
        protocol = Protocol.model_validate(config)
        preset = PRESETS.get(protocol.name, PRESETS["r1"])
        limit = protocol.sampling.max_tokens
        return {
            "benchmarks": list(
                latest_benchmarks().filter(name__in=benchmarks).values_list("pk", flat=True)
            ),
            "protocol": preset.name,
            "samples": None if protocol.samples == preset.samples else protocol.samples,
            "max_tokens": None if limit == preset.sampling.max_tokens else limit,
        }

    @property
    def resolved_protocol(self) -> Protocol:
        """The preset with n and limit replaced where they were given."""
        data = self.cleaned_data
        chosen = PRESETS[data["protocol"]]
        if data.get("samples") is not None:
            chosen = chosen.model_copy(update={"samples": data["samples"]})
        if data.get("max_tokens") is not None:
            sampling = chosen.sampling.model_copy(update={"max_tokens": data["max_tokens"]})
            chosen = chosen.model_copy(update={"sampling": sampling})
        return chosen

    def columns(self) -> list[Column]:
        """What is measured on each chosen benchmark; of an unfinished form what can be said."""
        if "protocol" not in self.cleaned_data:
            return []
        return columns_of(self.cleaned_data.get("benchmarks") or (), self.resolved_protocol)


def columns_of(benchmarks: Iterable[Benchmark], protocol: Protocol) -> list[Column]:
    """What is measured on each benchmark under a protocol."""
    found = []
    for benchmark in benchmarks:
        n = samples_for(protocol, benchmark.name)
        found.append(Column(benchmark, n, metrics_of(n, benchmark), n * benchmark.problem_count))
    return found


def metrics_of(samples: int, benchmark: Benchmark) -> list[str]:
    """The names of the figures that n samples a problem give, each naming its estimator.

    Programs have no answers that could vote.
    """
    names = [f"pass@1[avg-of-{samples}]"]
    if samples > 1:
        names.append(f"pass@{samples}")
        if not graders.get(benchmark.grader).untrusted:
            names.append(f"cons@{min(samples, CONSENSUS_K)}")
    return names


class ImportForm(LaunchForm):
    """Completions made elsewhere: a file of them, whose they are, and what they answer."""

    benchmark = forms.ModelChoiceField(Benchmark.objects.none(), empty_label="choose…")
    checkpoint = forms.CharField(
        max_length=200,
        help_text="Who wrote them: a name of its own, or that of your earlier import; not one of a "
        "model that is here.",
    )
    file = forms.FileField(
        allow_empty_file=True,
        help_text="JSON lines, also gzipped (.gz): problem_id, completion and, where there are "
        "several a problem, sample; one model a file.",
    )

    def __init__(self, user: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(user, *args, **kwargs)
        self.offer("benchmark", latest_benchmarks())
        self.order_fields(["project"])

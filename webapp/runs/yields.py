"""What a distillation's teacher has drawn so far: yield, tokens, money."""

from __future__ import annotations

from dataclasses import dataclass

from distiller.generation import Tally
from distiller.recipe import Recipe
from webapp.runs.models import Run, TrainingPoint


@dataclass(frozen=True, slots=True)
class TracesView:
    """The tallies of all shards that were begun, added up."""

    tally: Tally
    samples: int  # per prompt
    stop_after: int | None
    cost: float | None
    currency: str

    @property
    def tokens_per_trace(self) -> float | None:
        """Mean length of the traces whose tokens were counted."""
        counted = self.tally.traces - self.tally.uncounted
        return self.tally.completion_tokens / counted if counted else None


def traces_of(run: Run) -> TracesView | None:
    """The run's traces; None before the first tally, and for runs that draw none."""
    if run.kind != Run.Kind.DISTILLATION:
        return None
    tallies = list(
        TrainingPoint.objects.filter(stage__run=run, stage__kind="generate").values_list(
            "values", flat=True
        )
    )
    if not tallies:
        return None
    tally = Tally.total(tallies)
    plan = Recipe.model_validate(run.config).generation
    return TracesView(
        tally=tally,
        samples=plan.samples,
        stop_after=plan.stop_after,
        cost=tally.cost(plan.price),
        currency="" if plan.price is None else plan.price.currency,
    )

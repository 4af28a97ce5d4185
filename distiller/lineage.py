"""Where a student comes from: student → corpus → filter settings → traces → teacher → prompts.

One form for the model card and the pages. No torch in here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from distiller.recipe import Recipe
from evaluator.records import content_hash


@dataclass(frozen=True, slots=True)
class Link:
    """One link of the chain; ``content_hash`` is None where nothing is known of its content."""

    role: str
    name: str
    content_hash: str | None = None
    facts: dict[str, str] = field(default_factory=dict)
    key: int | None = None  # a page's number for it, where it has one

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "role": self.role, "name": self.name, "content_hash": self.content_hash,
            "facts": self.facts,
        }  # fmt: skip


def links(
    recipe: Recipe,
    *,
    student: Link,
    base: Link,
    teacher: Link,
    prompts: Link,
    manifest: Mapping[str, Any] | None = None,
    manifest_hash: str | None = None,
    funnel: Mapping[str, Any] | None = None,
    tally: Mapping[str, Any] | None = None,
) -> list[Link]:
    """The chain of a student made by ``recipe``, from the student back to the prompts.

    ``manifest`` is its corpus', ``funnel`` its filters', ``tally`` its traces' counts; what is not
    given stands as not known, never as nothing.
    """
    return [
        student,
        base,
        Link("corpus", _corpus_name(manifest, funnel), manifest_hash, _corpus_facts(manifest)),
        Link(
            "filter settings",
            ", ".join(choice.name for choice in recipe.filters) or "no filter",
            content_hash(filter_settings(recipe)),
            {"decontamination": "on" if recipe.decontaminate else "OFF", **_parameters(recipe)},
        ),
        Link("traces", _traces_name(tally), None, _trace_facts(recipe, tally)),
        teacher,
        prompts,
    ]


def filter_settings(recipe: Recipe) -> dict[str, Any]:
    """What decides which traces are kept."""
    return {
        "filters": [choice.model_dump(mode="json") for choice in recipe.filters],
        "decontaminate": recipe.decontaminate,
        "thinking": recipe.thinking.model_dump(mode="json"),
    }


def _corpus_name(manifest: Mapping[str, Any] | None, funnel: Mapping[str, Any] | None) -> str:
    if manifest is not None:
        return f"{manifest['examples']:,} examples"
    if funnel is not None and funnel.get("steps"):
        return f"{funnel['steps'][-1]['kept']:,} examples"
    return "not known"


def _corpus_facts(manifest: Mapping[str, Any] | None) -> dict[str, str]:
    if manifest is None:
        return {}
    return {
        "problems": f"{manifest['problems']:,}",
        "tokens": f"{manifest['tokens']:,}",
        "supervised tokens": f"{manifest['supervised_tokens']:,}",
    }


def _parameters(recipe: Recipe) -> dict[str, str]:
    return {
        choice.name: ", ".join(f"{name} {value}" for name, value in choice.parameters.items())
        for choice in recipe.filters
        if choice.parameters
    }


def _traces_name(tally: Mapping[str, Any] | None) -> str:
    return "not known" if tally is None else f"{tally['traces']:,} traces"


def _trace_facts(recipe: Recipe, tally: Mapping[str, Any] | None) -> dict[str, str]:
    plan = recipe.generation
    facts = {
        "samples per prompt": str(plan.samples),
        "temperature": f"{plan.sampling.temperature:g}",
        "top-p": f"{plan.sampling.top_p:g}",
        "longest": f"{plan.sampling.max_tokens:,} tokens",
        "mode": plan.mode.replace("_", "-"),
        "seed": str(plan.seed),
    }
    if tally is not None and tally["prompts"]:
        share = tally["prompts_verified"] / tally["prompts"]
        facts["prompts with a verified trace"] = f"{100 * share:.1f} %"
        facts["generated tokens"] = f"{tally['completion_tokens']:,}"
    return facts

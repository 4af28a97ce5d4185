"""The model card of a student: how it was made, from what, and how good it was measured to be."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distiller.checkpoints import CheckpointInfo
from distiller.lineage import Link
from distiller.recipe import Recipe

NOT_STATED = "not stated"


@dataclass(frozen=True, slots=True)
class Licences:
    """What its owner says of the rights; what is not stated is said to be so."""

    weights: str | None = None  # an SPDX name, as apache-2.0
    base: str | None = None
    teacher: str | None = None
    prompts: str | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """A measured pass@1 with what makes it comparable."""

    benchmark: str
    samples: int
    value: float | None  # None: incomplete
    low: float | None
    high: float | None
    measurement_hash: str

    @classmethod
    def of(cls, metrics: Mapping[str, Any]) -> Score:
        """From a metrics.json."""
        first = metrics["pass@1"]
        return cls(
            benchmark=str(metrics["benchmark"]),
            samples=int(metrics["samples"]),
            value=first["value"],
            low=first["low"],
            high=first["high"],
            measurement_hash=str(metrics["measurement_hash"]),
        )


def render(
    name: str,
    info: CheckpointInfo,
    recipe: Recipe,
    chain: Sequence[Link],
    *,
    funnel: Mapping[str, Any] | None = None,
    scores: Sequence[Score] = (),
    licences: Licences | None = None,
) -> str:
    """The card as Markdown with the hub's YAML header (JSON scalars, which YAML reads too)."""
    rights = licences or Licences()
    base = next((link.name for link in chain if link.role == "base"), None)
    header = {
        "license": rights.weights or "other",
        "base_model": base,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["distillation", "reasoning"],
    }
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in header.items()), "---", ""]
    lines += [f"# {_text(name)}", "", _summary(info, recipe, chain), ""]
    if not recipe.decontaminate:
        lines += [
            "**Its corpus was not decontaminated: the scores below may come from problems that it "
            "was taught.**",
            "",
        ]
    lines += ["## Scores", "", *_scores(scores), ""]
    lines += ["## Where it comes from", "", *_chain(chain), ""]
    if funnel is not None:
        lines += ["## What became of the traces", "", *_funnel(funnel), ""]
    lines += ["## Licences", "", *_licences(rights), ""]
    recipe_json = json.dumps(recipe.model_dump(mode="json"), indent=1, ensure_ascii=False)
    fence = "`" * max(3, _longest_run(recipe_json, "`") + 1)
    lines += ["## Recipe", "", f"{fence}json", recipe_json, fence, ""]
    return "\n".join(lines)


def _summary(info: CheckpointInfo, recipe: Recipe, chain: Sequence[Link]) -> str:
    teacher = next((link.name for link in chain if link.role == "teacher"), recipe.teacher)
    return (
        f"{info.parameters:,} parameters ({_text(info.architecture)}, {info.dtype}), fine-tuned on "
        f"reasoning traces of {_text(teacher)}. Content hash of the checkpoint without this card: "
        f"`{info.content_hash}`."
    )


def _scores(scores: Sequence[Score]) -> list[str]:
    if not scores:
        return ["It has not been measured."]
    rows = ["| benchmark | pass@1 | 95 % interval | measurement hash |", "|---|---|---|---|"]
    for score in scores:
        label = f"{_text(score.benchmark)} (avg of {score.samples})"
        value = "incomplete" if score.value is None else f"{100 * score.value:.1f} %"
        between = (
            "–"
            if score.low is None or score.high is None
            else f"{100 * score.low:.1f}–{100 * score.high:.1f} %"
        )
        rows.append(f"| {label} | {value} | {between} | `{score.measurement_hash}` |")
    return [*rows, "", "Scores can be compared where their measurement hashes are the same."]


def _chain(chain: Sequence[Link]) -> list[str]:
    rows = ["| link | is | content hash | facts |", "|---|---|---|---|"]
    for link in chain:
        facts = "; ".join(f"{key}: {value}" for key, value in link.facts.items())
        digest = "–" if link.content_hash is None else f"`{link.content_hash}`"
        rows.append(f"| {link.role} | {_text(link.name)} | {digest} | {_text(facts) or '–'} |")
    return rows


def _funnel(funnel: Mapping[str, Any]) -> list[str]:
    rows = ["| step | kept | dropped | reasons |", "|---|---:|---:|---|"]
    for step in funnel["steps"]:
        reasons = ", ".join(f"{code} {count:,}" for code, count in step["reasons"].items())
        rows.append(
            f"| {_text(step['step'])} | {step['kept']:,} | {step['dropped']:,} "
            f"| {_text(reasons) or '–'} |"
        )
    return rows


def _licences(rights: Licences) -> list[str]:
    stated = {
        "these weights": rights.weights,
        "the base": rights.base,
        "the teacher's outputs": rights.teacher,
        "the prompts": rights.prompts,
    }
    return [f"- {what}: {_text(value or NOT_STATED)}" for what, value in stated.items()]


def _text(value: str) -> str:
    """One line that a table cell can hold, and nothing that Markdown or HTML would run."""
    line = " ".join(value.split()).replace("\\", "\\\\").replace("|", "\\|")
    return line.replace("<", "&lt;").replace(">", "&gt;")


def _longest_run(text: str, mark: str) -> int:
    longest = run = 0
    for letter in text:
        run = run + 1 if letter == mark else 0
        longest = max(longest, run)
    return longest

"""Before a launch: presets, what it would take, the same as a file and as commands, chats."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.http import HttpRequest
from pydantic import Field

from webapp.api.auth import WRITE
from webapp.api.forms import only_known
from webapp.api.framework import File, Router, Schema, UploadedFile
from webapp.api.places import place
from webapp.api.routes.launching import (
    DistilIn,
    EvaluateIn,
    RecipeIn,
    evaluation_form,
    recipe_of,
)
from webapp.core import audit
from webapp.core.errors import UserError
from webapp.core.users import signed_in
from webapp.projects.access import require_place
from webapp.runs import ingredients
from webapp.runs.devices import Devices
from webapp.runs.launching import chats, commands, estimates, presets, recipe_yaml

router = Router(tags=["launching"])
chats_router = Router(tags=["launching"])


class FigureOut(Schema):
    """A line of an estimate."""

    name: str
    value: str = Field(description="With its unit; “unknown” where nothing is known.")
    basis: str = Field(description="What it rests on.")


class ColumnOut(Schema):
    """What is measured on a benchmark."""

    benchmark: str
    samples: int = Field(description="n")
    metrics: list[str] = Field(description="The figures that n samples a problem give.")
    completions: int = Field(description="Of one checkpoint.")


class PlanOut(Schema):
    """What a launch of evaluations asks for."""

    evaluations: int
    completions: int
    temperature: float
    max_tokens: int
    columns: list[ColumnOut]
    times: list[FigureOut] = Field(description="A line for each checkpoint.")


class PresetOut(Schema):
    """A recipe to begin with: names and what it leaves out are for whoever launches."""

    name: str
    about: str
    recipe: dict[str, Any] = Field(description="The fields that it sets.")


class WrittenOut(Schema):
    """A recipe as it would be kept, and what follows it on a command line."""

    yaml: str
    commands: str = Field(description="For a shell in the installation's folder.")


class ChatsOut(Schema):
    """Chats that are here now."""

    file: str = Field(description="What a recipe names them by, as corpus.general[].file.")


@router.get("/presets", response=list[PresetOut])
def runs_presets(request: HttpRequest) -> list[dict[str, Any]]:
    """Recipes to begin with."""
    return [
        {"name": each.name, "about": each.about, "recipe": each.draft.given}
        for each in presets.all_of_them().values()
    ]


@router.post("/distil/estimate", response=list[FigureOut], auth=WRITE)
def runs_distil_estimate(request: HttpRequest, body: DistilIn) -> list[estimates.Figure]:
    """Tokens, times, memory and money of a distillation; the body is that of the launch."""
    person = signed_in(request)
    require_place(person)
    place(person, body.project)
    recipe, teacher, _, base, prompt_set = ingredients.of_recipe(recipe_of(body), person)
    return estimates.of_distillation(
        recipe, user=person, teacher=teacher, base=base, prompt_set=prompt_set,
        benchmarks=[ingredients.newest_benchmark(name) for name in recipe.evaluation.benchmarks],
        devices=Devices(body.generate_devices, body.train_devices, body.evaluate_devices),
    )  # fmt: skip


@router.post("/distil/recipe", response=WrittenOut, auth=WRITE)
def runs_recipe(request: HttpRequest, body: RecipeIn) -> dict[str, str]:
    """The whole recipe with every default, and the same work as commands."""
    person = signed_in(request)
    require_place(person)
    place(person, body.project)
    recipe = recipe_of(body)
    ingredients.of_recipe(recipe, person)
    return {
        "yaml": recipe_yaml.recipe_text(recipe),
        "commands": commands.of_distillation(recipe, person),
    }


@router.post("/evaluate/estimate", response=PlanOut, auth=WRITE)
def runs_evaluate_estimate(request: HttpRequest, body: EvaluateIn) -> dict[str, Any]:
    """How many completions, of which length, for which figures; the body is the launch's."""
    person = signed_in(request)
    require_place(person)
    plan = estimates.of_evaluations(evaluation_form(person, body))
    assert plan is not None, "a form with nothing wrong names checkpoints and benchmarks"
    names = ("samples", "metrics", "completions")
    return {
        name: getattr(plan, name)
        for name in ("evaluations", "completions", "temperature", "max_tokens", "times")
    } | {
        "columns": [
            {name: getattr(each, name) for name in names} | {"benchmark": each.benchmark.name}
            for each in plan.columns
        ]
    }


@chats_router.post("", response={201: ChatsOut}, auth=WRITE)
def chats_keep(request: HttpRequest, file: File[UploadedFile]) -> Any:
    """Bring general chats in (JSON lines, also .gz), to be mixed into a corpus.

    They count in one's quota, and go where no run names them in the end.
    """
    person = signed_in(request)
    require_place(person)
    only_known(request)
    with transaction.atomic():
        try:
            path = chats.keep(file, person)
        except UserError as error:
            raise UserError(error.sentence, "file") from None
        audit.record(person, "chats.keep", file=path)
    return {"file": path}

"""Launching runs: distillations by a recipe, evaluations, imports of completions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.datastructures import MultiValueDict
from pydantic import Field, ValidationError

from distiller.recipe import Recipe
from webapp.api.auth import WRITE
from webapp.api.forms import cleaned, only_known
from webapp.api.framework import File, Form, Router, Schema, UploadedFile
from webapp.api.places import place
from webapp.api.routes.runs import RunDetail, detail
from webapp.api.schemas import In, Json, Key, Name, Text
from webapp.benchmarks.queries import latest_benchmarks
from webapp.checkpoints.queries import runnable
from webapp.core import audit
from webapp.core.errors import UserError
from webapp.core.models import User
from webapp.core.users import signed_in
from webapp.projects.access import place_for, seen_by
from webapp.runs import files, queries, services
from webapp.runs.devices import Devices
from webapp.runs.launch_views import launch_import
from webapp.runs.launching import recipe_yaml
from webapp.runs.launching.evaluate import EvaluationForm, ImportForm
from webapp.runs.models import Run

router = Router(tags=["launching"])

Count = Annotated[int, Field(ge=1, le=64)]


class RecipeIn(In):
    """A recipe: as an object, or as the text of a YAML file."""

    recipe: Json | None = None
    yaml: Annotated[Text, Field(max_length=200_000)] | None = None
    project: Key | None = None


class DistilIn(RecipeIn):
    """A distillation: its recipe, and what it is given."""

    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    generate_devices: Count = 1
    train_devices: Count = 1
    evaluate_devices: Count = 1


class EvaluateIn(In):
    """Each checkpoint is measured on each benchmark, in one run."""

    checkpoints: Annotated[list[Name], Field(min_length=1, max_length=100)] = Field(
        description="Names of checkpoints and endpoints."
    )
    benchmarks: Annotated[list[Name], Field(min_length=1, max_length=100)] = Field(
        description="Names; the newest version of each counts."
    )
    protocol: Name = Field("quick", description="A preset: quick, r1, …")
    samples: int | None = Field(None, ge=1, le=1024, description="n; null: as the preset says.")
    max_tokens: int | None = Field(None, ge=1, le=10**7)
    engine: Name = "transformers"
    devices: Count = 1
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    project: Key | None = None


class ImportIn(In):
    """Whose the completions are, and what they answer."""

    checkpoint: Name
    benchmark: Name
    project: Key | None = None


class CheckOut(Schema):
    """What a check of a recipe found."""

    final: bool
    state: str
    found: dict[str, Any] | None = Field(description="checks, errors, warnings, figures")


def recipe_of(body: RecipeIn) -> Recipe:
    """The recipe, as far as it is one in itself. Raises UserError naming its field.

    Whether what it names is here to be used, the services judge (``webapp/runs/ingredients.py``).
    """
    if (body.recipe is None) == (body.yaml is None):
        raise UserError("recipe: give either recipe or yaml.", "recipe")
    try:
        fields = body.recipe if body.yaml is None else recipe_yaml.read_fields(body.yaml)
        recipe = Recipe.model_validate(fields)
    except recipe_yaml.YamlError as error:
        raise UserError(f"yaml: {error}", "yaml") from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(["recipe", *map(str, first["loc"])])
        said = first["msg"].removeprefix("Value error, ").rstrip(".")
        raise UserError(f"{field}: {said}.", field) from None
    return recipe


def _launched(request: HttpRequest, launch: Callable[[], Run]) -> dict[str, Any]:
    person = signed_in(request)
    with transaction.atomic():
        run = launch()
        audit.record(person, "run.launch", run, what=run.kind)
    return detail(queries.run_view(run.pk, person), person)


@router.post("/distil", response={201: RunDetail}, auth=WRITE)
def runs_distil(request: HttpRequest, body: DistilIn) -> Any:
    """Launch a distillation."""
    person, recipe = signed_in(request), recipe_of(body)
    devices = Devices(body.generate_devices, body.train_devices, body.evaluate_devices)
    return _launched(
        request, lambda: services.launch_distillation(
            owner=person, project=place(person, body.project), recipe=recipe,
            priority=body.priority, devices=devices,
        ),
    )  # fmt: skip


@router.post("/check", response={201: RunDetail}, auth=WRITE)
def runs_check(request: HttpRequest, body: RecipeIn) -> Any:
    """Have a worker check a recipe; ask for what it found with the run's number."""
    person, recipe = signed_in(request), recipe_of(body)
    return _launched(
        request, lambda: services.launch_check(
            owner=person, project=place(person, body.project), recipe=recipe
        ),
    )  # fmt: skip


@router.get("/{int:pk}/checked", response=CheckOut)
def runs_checked(request: HttpRequest, pk: int) -> dict[str, Any]:
    """What the check that begins a distillation, or is all of the run, has found."""
    view = queries.run_view(pk, signed_in(request))
    stage = queries.preflight_stage(view)
    found = files.read_preflight(stage) if stage else None
    return {"final": view.is_final, "state": view.run.state, "found": found}


def _keys(rows: QuerySet[Any], names: Sequence[str], field: str) -> list[int]:
    """The keys of the rows of these names. Raises UserError for the first name without a row."""
    known: dict[str, int] = dict(rows.filter(name__in=names).values_list("name", "pk"))
    for name in names:
        if name not in known:
            raise UserError(f"{field}: none is called {name[:60]!r} here; choose another.", field)
    return [known[name] for name in dict.fromkeys(names)]


def _given(person: User, values: dict[str, Any], project: int | None) -> MultiValueDict[str, Any]:
    """Values as a form gets them; where no project was named, the one that is begun with."""
    given = {key: each if isinstance(each, list) else [each] for key, each in values.items()}
    given["project"] = [place_for(person, place(person, project)).pk]
    return MultiValueDict({key: each for key, each in given.items() if each != [None]})


def evaluation_form(person: User, body: EvaluateIn) -> EvaluationForm:
    """The page's form, filled by names, with nothing wrong in it. Raises UserError."""
    values = body.model_dump(exclude={"project"})
    values["checkpoints"] = _keys(seen_by(person, runnable()), body.checkpoints, "checkpoints")
    values["benchmarks"] = _keys(latest_benchmarks(), body.benchmarks, "benchmarks")
    form = EvaluationForm(person, _given(person, values, body.project))
    cleaned(form)
    return form


@router.post("/evaluate", response={201: RunDetail}, auth=WRITE)
def runs_evaluate(request: HttpRequest, body: EvaluateIn) -> Any:
    """Launch evaluations: each checkpoint on each benchmark."""
    person = signed_in(request)
    form = evaluation_form(person, body)
    data = form.cleaned_data
    return _launched(
        request, lambda: services.launch_evaluations(
            owner=person, project=form.place,
            checkpoints=list(data["checkpoints"]), benchmarks=list(data["benchmarks"]),
            protocol=form.resolved_protocol, engine=data["engine"],
            priority=data["priority"] or 0, devices=data["devices"] or 1,
        ),
    )  # fmt: skip


@router.post("/import", response={201: RunDetail}, auth=WRITE)
def runs_import(request: HttpRequest, body: Form[ImportIn], file: File[UploadedFile]) -> Any:
    """Take in and grade a file of completions made elsewhere (JSON lines, also .gz)."""
    only_known(request, ImportIn)
    person = signed_in(request)
    values: dict[str, Any] = body.model_dump(exclude={"project"})
    values["benchmark"] = _keys(latest_benchmarks(), [body.benchmark], "benchmark")[0]
    form = ImportForm(
        person, _given(person, values, body.project), MultiValueDict({"file": [file]})
    )
    cleaned(form)
    return _launched(request, lambda: launch_import(form))

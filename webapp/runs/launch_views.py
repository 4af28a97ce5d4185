"""The pages that launch runs: a distillation, evaluations, an import of completions.

Every button is a plain form's; where htmx is at hand, the same answers replace a part of the page.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from django.contrib import messages
from django.core.files.uploadedfile import UploadedFile
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from webapp.checkpoints.queries import runnable
from webapp.core import audit
from webapp.core.errors import UserError
from webapp.core.models import User
from webapp.core.users import signed_in
from webapp.projects.access import require_place, seen_by
from webapp.runs import files, queries, services
from webapp.runs.launching import commands, estimates, presets, recipe_yaml
from webapp.runs.launching.distil import DistillationForm
from webapp.runs.launching.evaluate import EvaluationForm, ImportForm
from webapp.runs.launching.filling import Filled, fill, preset_values
from webapp.runs.models import FINAL_STATES, Run
from webapp.runs.texts import PreflightView

_NAMES = {
    "prompts": "prompt_set", "checkpoint": "checkpoints", "benchmark": "benchmarks",
    "corpus": "general_file",
}  # fmt: skip

# What a preset leaves as it was typed.
_KEPT = ("project", "teacher", "base", "student", "prompt_set", "general_kept")

View = Callable[[HttpRequest], HttpResponse]

_CHATS_KEPT = "The chats that were uploaded before are used; choose a file to replace them."


def for_operators(view: View) -> View:
    """A page for those who may launch something somewhere; others are refused with a sentence."""

    @wraps(view)
    def guarded(request: HttpRequest) -> HttpResponse:
        require_place(signed_in(request))
        return view(request)

    return guarded


def _is_partial(request: HttpRequest) -> bool:
    return bool(request.headers.get("hx-request"))


def _refusal(request: HttpRequest) -> int:
    """The status of a page that says what is wrong; htmx swaps nothing in for a 400."""
    return 200 if _is_partial(request) else 400


def _known(form: Any, field: str | None) -> str | None:
    """The form's field of that name, or None: the sentence then stands above the form."""
    if field in form.fields:
        return field
    name = _NAMES.get(field or "")
    return name if name in form.fields else None


def _note(run: Run) -> None:
    """Have the audit log say who launched it."""
    audit.record(run.owner, "run.launch", run, what=run.kind)


# --- a distillation


@require_http_methods(["GET", "HEAD", "POST"])
@for_operators
def distil(request: HttpRequest) -> HttpResponse:
    """Launch a distillation; or fill the form by a preset, an earlier run or a recipe in YAML."""
    if request.method != "POST":
        return _distil_page(request, _begun(request))
    action = request.POST.get("action", "launch")
    if action.startswith("preset:"):
        kept: dict[str, Any] = {name: request.POST.get(name, "") for name in _KEPT}
        kept["benchmarks"] = request.POST.getlist("benchmarks")
        return _distil_page(request, _by_preset(request, action.removeprefix("preset:"), kept))
    if action == "paste":
        return _pasted(request)
    form = DistillationForm(signed_in(request), request.POST, request.FILES)
    if form.is_valid():
        try:
            with transaction.atomic():
                run = services.launch_distillation(
                    owner=form.user,
                    project=form.place,
                    recipe=form.cleaned_data["recipe"],
                    priority=form.cleaned_data["priority"] or 0,
                    devices=form.devices,
                )
                _note(run)
        except UserError as error:
            form.add_error(_known(form, error.field), error.sentence)
        else:
            return redirect(run)
    return _distil_page(request, form, status=400)


def _distil_page(
    request: HttpRequest, form: DistillationForm, status: int = 200, **more: Any
) -> HttpResponse:
    if form.is_bound:
        form.focus_first_error()
    if form["general_kept"].value() and not form["general_file"].errors:
        form.notes = {"general_file": _CHATS_KEPT, **form.notes}
    context = {"form": form, "presets": _preset_cards(form), **more}
    return render(request, "runs/distil.html", context, status=status)


def _preset_cards(form: DistillationForm) -> list[dict[str, Any]]:
    """The presets with what each sets, in the words of the form."""
    cards = []
    for preset in presets.all_of_them().values():
        _, sets = preset_values(preset, form.user)
        words = {True: "yes", False: "no"}
        shown = [
            (form[name].label, words[value] if isinstance(value, bool) else value)
            for name, value in sets
        ]
        cards.append({"name": preset.name, "about": preset.about, "sets": shown})
    return cards


def _begun(request: HttpRequest) -> DistillationForm:
    """The form as a link opens it: empty, by a preset, or as an earlier run."""
    user = signed_in(request)
    wanted: dict[str, Any] = {
        key: request.GET[key] for key in ("teacher", "base", "prompt_set") if key in request.GET
    }
    if (name := request.GET.get("preset")) is not None:
        return _by_preset(request, name, wanted)
    if (clone := request.GET.get("clone", "")).isdecimal():
        by_recipe = Run.objects.filter(kind__in=(Run.Kind.DISTILLATION, Run.Kind.CHECK))
        seen = seen_by(user, by_recipe)
        run = get_object_or_404(seen, pk=clone[:18])
        try:
            draft = recipe_yaml.read_draft(recipe_yaml.dump(run.config))
        except recipe_yaml.YamlError as error:  # of a run that is older than today's recipe
            messages.warning(request, f"{run.name} cannot be cloned as it stands: {error}")
        else:
            messages.info(request, f"This is the recipe of {run.name}; change what you like.")
            return _form_of(user, fill(draft, user), project=run.project_id)
    return DistillationForm(user, initial=wanted)


def _by_preset(request: HttpRequest, name: str, kept: dict[str, Any]) -> DistillationForm:
    preset = presets.all_of_them().get(name)
    if preset is None:
        raise Http404
    user = signed_in(request)
    values, sets = preset_values(preset, user)
    form = DistillationForm(user, initial=values | kept)
    form.set_by_preset = frozenset(field for field, _ in sets)
    form.preset = name
    return form


def _form_of(user: User, filled: Filled, project: int | str | None) -> DistillationForm:
    where = {"project": project} if project else {}
    form = DistillationForm(user, initial=filled.initial | where)
    form.notes = filled.notes
    return form


def _pasted(request: HttpRequest) -> HttpResponse:
    """The form filled by the pasted recipe; or as it was, with what is wrong in the text."""
    text, user = request.POST.get("yaml", ""), signed_in(request)
    try:
        draft = recipe_yaml.read_draft(text)
    except recipe_yaml.YamlError as error:
        form = DistillationForm(user, initial=_as_typed(request))
        return _distil_page(
            request, form, status=_refusal(request), yaml=text, mistakes=error.mistakes
        )
    form = _form_of(user, fill(draft, user), project=request.POST.get("project"))
    return _distil_page(request, form, yaml=text, was_pasted=True)


def _as_typed(request: HttpRequest) -> dict[str, Any]:
    """What a form sent, to be shown again without being judged."""
    bound = DistillationForm(signed_in(request), request.POST)
    return {each.name: each.value() for each in bound}


@require_POST
@for_operators
def distil_recipe(request: HttpRequest) -> HttpResponse:
    """The form's recipe as YAML and as commands."""
    form = DistillationForm(signed_in(request), request.POST)
    told: dict[str, Any]
    if not form.is_valid():
        told = {"unreadable": True}
    else:
        recipe = form.cleaned_data["recipe"]
        text = recipe_yaml.recipe_text(recipe)
        told = {"yaml": text, "commands": commands.of_distillation(recipe, form.user)}
    if _is_partial(request):
        return render(request, "runs/launch/_recipe.html", {"form": form, **told})
    return _distil_page(request, form, **told)


@require_POST
@for_operators
def distil_estimate(request: HttpRequest) -> HttpResponse:
    """What the form's recipe would take, as far as can be said."""
    form = DistillationForm(signed_in(request), request.POST)
    form.is_valid()
    figures = estimates.of_form(form)
    if _is_partial(request):
        return render(request, "runs/launch/_estimate.html", {"figures": figures})
    return _distil_page(request, form, figures=figures)


@require_POST
@for_operators
def distil_check(request: HttpRequest) -> HttpResponse:
    """Have a worker check the form's recipe; the answer comes when it has."""
    form = DistillationForm(signed_in(request), request.POST, request.FILES)
    if form.is_valid():
        try:
            with transaction.atomic():
                run = services.launch_check(
                    owner=form.user, project=form.place, recipe=form.cleaned_data["recipe"]
                )
                _note(run)
        except UserError as error:
            form.add_error(_known(form, error.field), error.sentence)
        else:
            if _is_partial(request):
                context = _checked_context(run.pk, form.user)
                return render(request, "runs/launch/_checked.html", context)
            return redirect(run)
    if _is_partial(request):
        return render(request, "runs/launch/_checked.html", {"form": form})
    return _distil_page(request, form, status=400)


@require_safe
def checked(request: HttpRequest, pk: int) -> HttpResponse:
    """What a check has found; asked for again and again until it is over."""
    user = signed_in(request)
    run = get_object_or_404(seen_by(user, Run.objects.filter(kind=Run.Kind.CHECK)), pk=pk)
    return render(request, "runs/launch/_checked.html", _checked_context(run.pk, user))


def _checked_context(pk: int, user: User) -> dict[str, Any]:
    view = queries.run_view(pk, user)
    stage = queries.preflight_stage(view)
    return {
        "run": view.run,
        "view": view,
        "final": view.run.state in FINAL_STATES,
        "preflight": PreflightView.of(files.read_preflight(stage)) if stage else None,
    }


# --- evaluations


@require_http_methods(["GET", "HEAD", "POST"])
@for_operators
def evaluate(request: HttpRequest) -> HttpResponse:
    """Launch evaluations: each chosen checkpoint on each chosen benchmark."""
    if request.method != "POST":
        form = EvaluationForm(signed_in(request), initial=_wanted(request))
        return _evaluate_page(request, form)
    form = EvaluationForm(signed_in(request), request.POST)
    if form.is_valid():
        data = form.cleaned_data
        try:
            with transaction.atomic():
                run = services.launch_evaluations(
                    owner=form.user,
                    project=form.place,
                    checkpoints=list(data["checkpoints"]),
                    benchmarks=list(data["benchmarks"]),
                    protocol=form.resolved_protocol,
                    engine=data["engine"],
                    priority=data["priority"] or 0,
                    devices=data["devices"] or 1,
                )
                _note(run)
        except UserError as error:
            form.add_error(_known(form, error.field), error.sentence)
        else:
            return redirect(run)
    return _evaluate_page(request, form, status=400)


def _wanted(request: HttpRequest) -> dict[str, Any]:
    """What a link chose: checkpoints and benchmarks by id, or those of an earlier run."""
    if not (clone := request.GET.get("clone", "")).isdecimal():
        return {
            "checkpoints": request.GET.getlist("checkpoint"),
            "benchmarks": request.GET.getlist("benchmark"),
        }
    user = signed_in(request)
    seen = seen_by(user, Run.objects.filter(kind=Run.Kind.EVALUATION))
    run = get_object_or_404(seen, pk=clone[:18])
    initial, gone = evaluation_values(run, user)
    if gone:
        messages.warning(request, f"Not here (any more): {', '.join(gone)}.")
    return initial | {"project": run.project_id}


def evaluation_values(run: Run, user: User) -> tuple[dict[str, Any], list[str]]:
    """The form's values of an earlier evaluation run, and the names of what is gone."""
    found = run.evaluations.select_related("checkpoint", "benchmark")
    checkpoints = {each.checkpoint_id: str(each.checkpoint) for each in found if each.checkpoint_id}
    names = {each.benchmark.name for each in found}
    seen = seen_by(user, runnable().filter(pk__in=checkpoints))
    here = set(seen.values_list("pk", flat=True))
    values = EvaluationForm.values_of(run.config, names) | {"checkpoints": sorted(here)}
    return values, [name for pk, name in checkpoints.items() if pk not in here]


def _evaluate_page(request: HttpRequest, form: EvaluationForm, status: int = 200) -> HttpResponse:
    context: dict[str, Any] = {"form": form}
    if form.is_bound:
        form.focus_first_error()
        context |= {"plan": estimates.of_evaluations(form)}
    return render(request, "runs/evaluate.html", context, status=status)


@require_POST
@for_operators
def evaluate_plan(request: HttpRequest) -> HttpResponse:
    """How many evaluations and completions the form asks for, and which figures they give."""
    form = EvaluationForm(signed_in(request), request.POST)
    form.is_valid()
    if _is_partial(request):
        plan = estimates.of_evaluations(form)
        return render(request, "runs/launch/_plan.html", {"plan": plan})
    return _evaluate_page(request, form)


# --- completions made elsewhere


@require_http_methods(["GET", "HEAD", "POST"])
@for_operators
def import_completions(request: HttpRequest) -> HttpResponse:
    """Take in and grade a file of completions made elsewhere."""
    if request.method != "POST":
        wanted = {k: request.GET[k] for k in ("benchmark",) if k in request.GET}
        form = ImportForm(signed_in(request), initial=wanted)
        return render(request, "runs/import.html", {"form": form})
    form = ImportForm(signed_in(request), request.POST, request.FILES)
    if form.is_valid():
        try:
            with transaction.atomic():
                run = launch_import(form)
                _note(run)
        except UserError as error:
            form.add_error(_known(form, error.field), error.sentence)
        else:
            return redirect(run)
    return render(request, "runs/import.html", {"form": form}, status=400)


def launch_import(form: ImportForm) -> Run:
    """Launch the import. The run keeps a copy of its own; the uploaded file is gone afterwards."""
    uploaded: UploadedFile[Any] = form.cleaned_data["file"]
    name = uploaded.name or "completions"
    suffix = ".gz" if name.endswith(".gz") else ""
    with tempfile.TemporaryDirectory(prefix="retort-") as folder:
        path = Path(folder) / f"completions.jsonl{suffix}"
        with path.open("wb") as file:
            shutil.copyfileobj(uploaded, file)
        try:
            return services.import_completions(
                owner=form.user,
                project=form.place,
                checkpoint_name=form.cleaned_data["checkpoint"],
                benchmark=form.cleaned_data["benchmark"],
                path=path,
            )
        except UserError as error:
            # The sentence names our copy, which says nothing to whoever sent the file.
            sentence = error.sentence.replace(str(path), name).replace(path.name, name)
            raise UserError(sentence, error.field) from None

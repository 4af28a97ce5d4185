"""What a run is to be made of: found by name or as given, or refused with a sentence.

Nothing is written here. What the owner may not see is not there for their runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.conf import settings

from distiller import filters
from distiller.errors import InputError
from distiller.recipe import Price, Recipe
from evaluator import graders
from evaluator.errors import GraderError
from evaluator.protocol import Protocol, engine_settings
from webapp.benchmarks.models import Benchmark, PromptSet
from webapp.checkpoints.models import Checkpoint
from webapp.checkpoints.services import check_name
from webapp.config import celery
from webapp.core.errors import UserError
from webapp.core.models import User
from webapp.endpoints.models import Endpoint
from webapp.projects.access import seen_by
from webapp.runs import devices as grants
from webapp.runs.devices import Devices
from webapp.runs.launching import chats, recipe_yaml

ENGINES = ("transformers", "vllm")


def check_devices(devices: Devices, teacher: str, local: str) -> None:
    """Refuse devices that a stage cannot use; ``teacher`` and ``local`` are engines."""
    for kind, what, engine in (
        ("generate", "The teacher", teacher),
        ("train", "Training", None),
        ("evaluate", "A measured model", local),
    ):
        count = getattr(devices, kind)
        grants.check(count, what=what, field=f"{kind}_devices", engine=engine)


def check_judge(benchmark: Benchmark) -> None:
    """Refuse programs before anything is generated, where this host is to run them and cannot.

    Where RETORT_QUEUES says that the judge is another host's, that one says so when it comes to it.
    """
    if celery.JUDGE not in settings.RETORT_QUEUES:
        return
    try:
        graders.get(benchmark.grader).check_available()
    except GraderError as error:
        raise UserError(f"benchmark: {benchmark.title}: {error}", "benchmark") from None


def check_seen(checkpoints: Sequence[Checkpoint], owner: User) -> None:
    """Refuse what the owner may not see, as if it were not there."""
    given = Checkpoint.objects.filter(pk__in=[each.pk for each in checkpoints])
    seen = set(seen_by(owner, given).values_list("pk", flat=True))
    for checkpoint in checkpoints:
        if checkpoint.pk not in seen:
            raise UserError(
                f"checkpoint: no checkpoint that you may use is called {checkpoint.name!r}; choose "
                "another.",
                "checkpoint",
            )


def check_answerer(
    checkpoint: Checkpoint, endpoint: Endpoint | None, protocol: Protocol, engine: str
) -> None:
    """Refuse what cannot answer under this protocol."""
    if endpoint is not None:
        _check_askable(protocol, "protocol")
    elif not checkpoint.has_files:
        raise UserError(
            f"checkpoint: {checkpoint.name} has no files, only completions; upload the model.",
            "checkpoint",
        )
    elif engine not in ENGINES:
        raise UserError(f"engine: {engine!r} is not known; use {' or '.join(ENGINES)}.", "engine")


def of_recipe(
    recipe: Recipe, owner: User
) -> tuple[Recipe, Checkpoint, Endpoint | None, Checkpoint, PromptSet]:
    """The recipe as it is kept, teacher, its endpoint, base and prompt set. Raises UserError."""
    try:
        unfed = recipe_yaml.unfed(recipe.filters)
        filters.create(recipe.filters)
    except InputError as error:
        raise UserError(f"filters: {str(error).removeprefix('filters: ')}", "filters") from None
    for sentence in unfed.values():
        raise UserError(f"filters: {sentence}", "filters")
    for source in recipe.corpus.general:
        if not chats.may_use(owner, source.file):
            raise UserError(
                f"corpus: general: {source.file[:100]!r} was not uploaded here; upload it.",
                "corpus",
            )
    teacher, endpoint = _teacher(recipe, owner)
    if endpoint is not None:
        recipe = _taught_by(endpoint, recipe)
    base = _checkpoint(recipe.base, "base", owner)
    check_name(recipe.student, "student")
    prompt_set = PromptSet.objects.filter(name=recipe.prompts.set).first()
    if prompt_set is None:
        raise UserError(
            f"prompts: no prompt set is called {recipe.prompts.set!r}; install one first.",
            "prompts",
        )
    return recipe, teacher, endpoint, base, prompt_set


def _checkpoint(name: str, field: str, owner: User) -> Checkpoint:
    checkpoint = seen_by(owner, Checkpoint.objects.filter(name=name)).first()
    if checkpoint is None or not checkpoint.has_files:
        raise UserError(f"{field}: no checkpoint with files is called {name!r}.", field)
    return checkpoint


def _teacher(recipe: Recipe, owner: User) -> tuple[Checkpoint, Endpoint | None]:
    """The recipe's teacher: a checkpoint, and the endpoint where one serves it."""
    named = Endpoint.objects.filter(checkpoint__name=recipe.teacher)
    endpoint = seen_by(owner, named, "checkpoint__project").first()
    if endpoint is not None:
        return endpoint.checkpoint, endpoint
    if recipe.generation.engine == "openai":
        raise UserError(
            f"teacher: no endpoint is called {recipe.teacher!r}; register one first.", "teacher"
        )
    return _checkpoint(recipe.teacher, "teacher", owner), None


def _taught_by(endpoint: Endpoint, recipe: Recipe) -> Recipe:
    """The recipe with what is known of its teacher, as it is kept with the run."""
    if recipe.thinking.response_start:
        raise UserError(
            "thinking: an endpoint renders its prompts itself, so that nothing can be forced; "
            "leave out forced.",
            "thinking",
        )
    if "teacher" in recipe.evaluation.roles and recipe.evaluation.benchmarks:
        _check_askable(recipe.evaluation.protocol, "protocol")
    known: dict[str, Any] = {
        "engine": "openai", "base_url": endpoint.base_url, "model": endpoint.model,
    }  # fmt: skip
    prices = (endpoint.input_price, endpoint.output_price)
    if recipe.generation.price is None and prices != (None, None):
        known["price"] = Price(input_per_million=prices[0] or 0, output_per_million=prices[1] or 0)
    generation = recipe.generation.model_copy(update=known)
    return recipe.model_copy(update={"generation": generation})


def _check_askable(protocol: Protocol, field: str) -> None:
    """Refuse what only a prompt that is rendered here can hold."""
    if (
        engine_settings(protocol)
        or protocol.chat_template is not None
        or protocol.thinking.response_start
    ):
        raise UserError(
            f"{field}: an endpoint renders its prompts itself; leave out chat_template, "
            "context_tokens, rope and thinking.forced.",
            field,
        )


def newest_benchmark(name: str) -> Benchmark:
    """The newest version of an installed benchmark. Raises UserError."""
    benchmark = Benchmark.objects.filter(name=name).first()
    if benchmark is None:
        raise UserError(
            f"benchmarks: {name!r} is not installed; run manage.py import_benchmark {name} FILE.",
            "benchmarks",
        )
    return benchmark

"""The same work on the command line: what to type for a recipe, with this installation's files."""

from __future__ import annotations

import json
import shlex
from typing import Any

from django.db.models import QuerySet

from distiller.recipe import Recipe
from webapp.benchmarks.models import Benchmark
from webapp.benchmarks.queries import latest_benchmarks, latest_prompt_sets
from webapp.checkpoints.models import Checkpoint
from webapp.core.models import User
from webapp.endpoints.models import Endpoint
from webapp.projects.access import seen_by

STORE = "var/files"  # RETORT_VAR's files, as seen from the checkout


def of_distillation(recipe: Recipe, user: User) -> str:
    """Shell commands that follow a recipe from traces to scores, each resumable by itself.

    Of checkpoints and endpoints that the person does not see they name no folder and no address.
    """
    named = Endpoint.objects.filter(checkpoint__name=recipe.teacher)
    endpoint = seen_by(user, named, "checkpoint__project").first()
    prompts = _stored(latest_prompt_sets().filter(name=recipe.prompts.set).values_list("path"))
    local = _local(recipe, endpoint, prompts, seen_by(user, Checkpoint.objects.all()))
    installed = list(latest_benchmarks())
    against = [part for each in installed for part in ("--benchmark", _problems(each))]
    plan = recipe.evaluation
    lines = [
        "# From the folder of the installation; --device cuda trains on its GPUs.",
        *([] if endpoint is None else ["# OPENAI_API_KEY holds the endpoint's key."]),
        _file("recipe.json", local.model_dump(mode="json")),
        _line("distiller", "preflight", "recipe.json", *against),
        _line("distiller", "generate", "recipe.json", "--prompts", prompts, "--out", "traces"),
        _line(
            "distiller", "filter", "--traces", "traces/traces.jsonl.gz", "--problems", prompts,
            "--recipe", "recipe.json", *(against if recipe.decontaminate else []),
            "--out", "filtered",
        ),
        _line(
            "distiller", "train", "recipe.json", "--corpus", "filtered/corpus", "--out", "student"
        ),
        _line(
            "distiller", "export", "student", "recipe.json", "--filtered", "filtered",
            "--traces", "traces", "--out", f"{recipe.student}.tar",
        ),
    ]  # fmt: skip
    chosen = [each for each in installed if each.name in plan.benchmarks]
    if chosen:
        lines.append(_file("protocol.json", plan.protocol.model_dump(mode="json")))
    lines += [_measuring(role, each, local, endpoint) for each in chosen for role in plan.roles]
    return "\n".join(lines)


def _local(
    recipe: Recipe, endpoint: Endpoint | None, prompts: str, seen: QuerySet[Checkpoint]
) -> Recipe:
    """The recipe with folders and files in place of names."""
    named = recipe.model_copy(
        update={
            "base": _stored(seen.filter(name=recipe.base).values_list("path")),
            "prompts": recipe.prompts.model_copy(update={"set": prompts}),
            "corpus": recipe.corpus.model_copy(
                update={
                    "general": tuple(
                        source.model_copy(update={"file": f"{STORE}/{source.file}"})
                        for source in recipe.corpus.general
                    )
                }
            ),
        }
    )
    if endpoint is None:
        folder = _stored(seen.filter(name=recipe.teacher).values_list("path"))
        return named.model_copy(update={"teacher": folder})
    asked = {"base_url": endpoint.base_url, "model": endpoint.model}
    return named.model_copy(update={"generation": recipe.generation.model_copy(update=asked)})


def _measuring(role: str, benchmark: Benchmark, local: Recipe, endpoint: Endpoint | None) -> str:
    served = endpoint is not None and role == "teacher"
    engine = local.evaluation.engine or (
        "transformers" if endpoint is not None else local.generation.engine
    )
    model = {"student": "student", "base": local.base, "teacher": local.teacher}[role]
    parts = ["--engine", engine, "--model", model]
    if endpoint is not None and served:
        parts = ["--engine", "openai", "--base-url", endpoint.base_url, "--model", endpoint.model]
    return _line(
        "evaluator", "run", "--benchmark", benchmark.name, "--problems", _problems(benchmark),
        *parts, "--protocol", "protocol.json", "--out", f"scores/{role}-{benchmark.name}",
    )  # fmt: skip


def _line(module: str, *parts: str) -> str:
    return shlex.join(["python", "-m", module, *parts])


def _file(name: str, content: object) -> str:
    """A document that the shell writes as it stands; JSON has no line of capitals alone."""
    text = json.dumps(content, ensure_ascii=False, indent=1)
    return f"cat > {name} <<'END'\n{text}\nEND"


def _problems(benchmark: Benchmark) -> str:
    return f"{STORE}/benchmarks/{benchmark.content_hash}.jsonl"


def _stored(paths: QuerySet[Any, Any]) -> str:
    found = paths.first()
    return f"{STORE}/{found[0]}" if found else "FILE"

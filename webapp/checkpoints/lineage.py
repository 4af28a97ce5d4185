"""A student's lineage from the rows: corpus → filter settings → traces → teacher → prompts."""

from __future__ import annotations

from distiller import lineage
from distiller.lineage import Link
from distiller.recipe import Recipe
from webapp.benchmarks.models import PromptSet
from webapp.checkpoints.models import Checkpoint
from webapp.projects.access import ELSEWHERE
from webapp.runs.models import Run
from webapp.runs.yields import traces_of


def made_by(checkpoint: Checkpoint, seen: frozenset[int]) -> Run | None:
    """The distillation that made it; None where none did, or none in the projects ``seen``."""
    run = checkpoint.produced_by
    if run is None or run.kind != Run.Kind.DISTILLATION or run.project_id not in seen:
        return None
    return run


def lineage_of(checkpoint: Checkpoint, seen: frozenset[int]) -> list[Link]:
    """The chain from a student back to its prompts, to who sees the projects ``seen``.

    Empty for what no distillation made that they see.
    """
    run = made_by(checkpoint, seen)
    if run is None:
        return []
    recipe = Recipe.model_validate(run.config)
    stages = {stage.kind: stage for stage in run.stages.filter(kind__in=("generate", "filter"))}
    config = stages["generate"].config if "generate" in stages else {}
    named = Checkpoint.objects.in_bulk([config[k] for k in ("teacher", "base") if k in config])
    prompts = PromptSet.objects.filter(pk=config.get("prompt_set", 0)).first()
    filtered = stages["filter"].result if "filter" in stages else {}
    drawn = traces_of(run)
    return lineage.links(
        recipe,
        student=_checkpoint("student", checkpoint.name, checkpoint, seen),
        base=_checkpoint("base", recipe.base, named.get(config.get("base", 0)), seen),
        teacher=_checkpoint("teacher", recipe.teacher, named.get(config.get("teacher", 0)), seen),
        prompts=Link(
            "prompts",
            recipe.prompts.set,
            None if prompts is None else prompts.content_hash,
            {} if prompts is None else {"problems": f"{prompts.prompt_count:,}"},
            key=None if prompts is None else prompts.pk,
        ),
        manifest_hash=filtered.get("manifest_hash"),
        funnel=filtered.get("funnel"),
        tally=None if drawn is None else drawn.tally.to_json(),
    )


def _checkpoint(role: str, name: str, found: Checkpoint | None, seen: frozenset[int]) -> Link:
    if found is None:
        return Link(role, name, facts={"": "deleted here"})
    if found.project_id not in seen:
        return Link(role, ELSEWHERE)
    return Link(role, found.name, found.content_hash or None, key=found.pk)

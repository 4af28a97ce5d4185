"""A student's model card, and its checkpoint as a tar, from the rows."""

from __future__ import annotations

import re
from collections.abc import Iterator

from distiller import card, exporting
from distiller.card import Licences, Score
from distiller.checkpoints import CheckpointInfo
from distiller.recipe import Recipe
from evaluator.errors import StoreError
from webapp.checkpoints.lineage import lineage_of
from webapp.checkpoints.models import Checkpoint
from webapp.core import store
from webapp.core.errors import UserError
from webapp.runs.models import Evaluation, Run, Stage, State


def has_card(checkpoint: Checkpoint) -> bool:
    """Whether a distillation here made it: of others nothing is known to write down."""
    run = checkpoint.produced_by
    return run is not None and run.kind == Run.Kind.DISTILLATION


def card_of(checkpoint: Checkpoint) -> str:
    """The card as Markdown. Raises UserError for a checkpoint that no distillation here made."""
    run = checkpoint.produced_by
    if run is None or not has_card(checkpoint):
        raise UserError(f"{checkpoint.name}: no distillation here made it, so it has no card.")
    chain = lineage_of(checkpoint)
    named = Checkpoint.objects.in_bulk([link.key for link in chain if link.key is not None])
    licences = {
        link.role: named[link.key].licence for link in chain
        if link.role in ("base", "teacher") and link.key in named
    }  # fmt: skip
    filtered = Stage.objects.filter(run=run, kind="filter", state=State.FINISHED).first()
    rows = Evaluation.objects.filter(checkpoint=checkpoint).order_by("benchmark__name", "pk")
    scores = [Score.of(metrics) for each in rows if (metrics := each.metrics)]
    return card.render(
        checkpoint.name,
        _info(checkpoint),
        Recipe.model_validate(run.config),
        chain,
        funnel=None if filtered is None else filtered.result.get("funnel"),
        scores=scores,
        licences=Licences(
            weights=checkpoint.licence or None,
            base=licences.get("base") or None,
            teacher=licences.get("teacher") or None,
            prompts=checkpoint.prompts_licence or None,
        ),
    )


def tar_of(checkpoint: Checkpoint) -> tuple[str, int, Iterator[bytes]]:
    """File name, length and blocks of the checkpoint's tar, with its card where it has one.

    Raises UserError where its files are not here.
    """
    try:
        folder = store.fetch(checkpoint.path) if checkpoint.has_files else None
    except StoreError as error:
        raise UserError(f"{checkpoint.name}: {error} Try again.") from error
    if folder is None or not folder.is_dir():
        raise UserError(f"{checkpoint.name}: its files are not here.")
    text = card_of(checkpoint) if has_card(checkpoint) else None
    top = re.sub(r"[^A-Za-z0-9._-]", "--", checkpoint.name)[:150]
    return (
        f"{top}.tar",
        exporting.tar_bytes(folder, text, top),
        exporting.tar_blocks(folder, text, top),
    )


def _info(checkpoint: Checkpoint) -> CheckpointInfo:
    return CheckpointInfo(
        architecture=checkpoint.architecture,
        parameters=checkpoint.parameters or 0,
        size_bytes=checkpoint.size_bytes or 0,
        dtype=checkpoint.dtype,
        context_tokens=checkpoint.context_tokens,
        has_chat_template=checkpoint.has_chat_template,
        content_hash=checkpoint.content_hash,
    )

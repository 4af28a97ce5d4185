"""A student's model card, and its checkpoint as a tar, from the rows."""

from __future__ import annotations

import re
from collections.abc import Iterator

from distiller import card, exporting
from distiller.card import Licences, Score
from distiller.checkpoints import CheckpointInfo
from distiller.recipe import Recipe
from evaluator.errors import StoreError
from webapp.checkpoints.lineage import lineage_of, made_by
from webapp.checkpoints.models import Checkpoint
from webapp.core import store
from webapp.core.errors import UserError
from webapp.projects.access import ELSEWHERE
from webapp.runs.models import Evaluation, Stage, State


def has_card(checkpoint: Checkpoint, seen: frozenset[int]) -> bool:
    """Whether a distillation made it that who sees the projects ``seen`` knows of.

    Of others nothing is known to write down.
    """
    return made_by(checkpoint, seen) is not None


def card_of(checkpoint: Checkpoint, seen: frozenset[int]) -> str:
    """The card as Markdown, naming nothing that lies outside the projects ``seen``.

    Raises UserError for a checkpoint that no distillation there made.
    """
    run = made_by(checkpoint, seen)
    if run is None:
        raise UserError(f"{checkpoint.name}: no distillation here made it, so it has no card.")
    chain = lineage_of(checkpoint, seen)
    named = Checkpoint.objects.in_bulk([link.key for link in chain if link.key is not None])
    licences = {
        link.role: named[link.key].licence for link in chain
        if link.role in ("base", "teacher") and link.key in named
    }  # fmt: skip
    hidden = {link.role: link.name for link in chain if link.name == ELSEWHERE}
    filtered = Stage.objects.filter(run=run, kind="filter", state=State.FINISHED).first()
    measured = Evaluation.objects.filter(checkpoint=checkpoint, run__project__in=seen)
    rows = measured.order_by("benchmark__name", "pk")
    scores = [Score.of(metrics) for each in rows if (metrics := each.metrics)]
    return card.render(
        checkpoint.name,
        _info(checkpoint),
        Recipe.model_validate(run.config).model_copy(update=hidden),
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


def tar_of(checkpoint: Checkpoint, seen: frozenset[int]) -> tuple[str, int, Iterator[bytes]]:
    """File name, length and blocks of the checkpoint's tar, with its card where it has one.

    Raises UserError where its files are not here.
    """
    try:
        folder = store.fetch(checkpoint.path) if checkpoint.has_files else None
    except StoreError as error:
        raise UserError(f"{checkpoint.name}: {error} Try again.") from error
    if folder is None or not folder.is_dir():
        raise UserError(f"{checkpoint.name}: its files are not here.")
    text = card_of(checkpoint, seen) if has_card(checkpoint, seen) else None
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

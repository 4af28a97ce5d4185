"""Which queues a worker of this host serves, and how many devices a stage may ask for here."""

from __future__ import annotations

import logging

from django.conf import settings

from webapp.config.celery import GPU, JUDGE, QUEUES
from webapp.core.errors import UserError
from workers import gpus

logger = logging.getLogger(__name__)


def served() -> list[str]:
    """Those of RETORT_QUEUES that this host can serve.

    ``gpu`` needs a device, or RETORT_GPU_QUEUE_ON_CPU's word that the CPU stands in for one. Raises
    UserError for a queue that does not exist.
    """
    for name in settings.RETORT_QUEUES:
        if name not in QUEUES:
            raise UserError(f"RETORT_QUEUES: {name!r} is no queue; use {', '.join(QUEUES)}.")
    if gpus.samples() or settings.RETORT_GPU_QUEUE_ON_CPU:
        return list(settings.RETORT_QUEUES)
    kept = [name for name in settings.RETORT_QUEUES if name != GPU]
    if GPU in settings.RETORT_QUEUES:
        logger.warning(
            "no CUDA device here: the gpu queue is not served; RETORT_GPU_QUEUE_ON_CPU=1 has the "
            "CPU do it"
        )
    return kept


def refuse_more_than_the_role_may(served: list[str], *, restricted: bool) -> None:
    """Raise UserError where the judge's database role is to serve other queues."""
    if restricted and served != [JUDGE]:
        raise UserError(
            "RETORT_QUEUES: the role of DATABASE_URL may only judge; set RETORT_QUEUES=judge."
        )


def most_devices() -> int | None:
    """How many devices a stage may need to be done here; None where the CPU stands in for them."""
    found = len(gpus.samples())
    return None if not found and settings.RETORT_GPU_QUEUE_ON_CPU else found

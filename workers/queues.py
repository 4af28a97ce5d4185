"""Which queues a worker of this machine serves."""

from __future__ import annotations

from django.conf import settings

from webapp.config.celery import CPU, GPU
from workers import gpus


def served() -> list[str]:
    """``cpu`` always; ``gpu`` where there is a device, or where the CPU may stand in for one."""
    if gpus.devices() or settings.RETORT_GPU_QUEUE_ON_CPU:
        return [GPU, CPU]
    return [CPU]

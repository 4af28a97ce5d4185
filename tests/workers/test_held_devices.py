"""A child sees the devices that were granted to it, and a cancel frees them all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from webapp.runs import files, services
from webapp.runs.models import Device, DeviceRequest, Run, Shard, Stage, State
from workers import gpus
from workers.gpus import Sample
from workers.tasks.stages import do_work

HOST = "node"


@pytest.fixture
def devices(transactional_db: None, monkeypatch: pytest.MonkeyPatch, settings: Any) -> list[Sample]:
    """Three on this host."""
    found = [Sample(f"GPU-{index}", "Fake") for index in range(3)]
    settings.RETORT_HOST = HOST
    monkeypatch.setattr(gpus, "inventory", lambda: found)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    gpus.record(HOST, found)
    return found


def seen_by(pid: int) -> list[str]:
    """What the process was started with in CUDA_VISIBLE_DEVICES."""
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    found = dict(pair.partition("=")[::2] for pair in pairs)
    return found["CUDA_VISIBLE_DEVICES"].split(",")


def test_cancelling_frees_devices_lease_and_processes_within_ten_seconds(
    devices: list[Sample],
    run: Run,
    evaluate: Stage,
    child: Callable[[str], None],
    wait_until: Callable[..., Any],
    at_work: Callable[[str], threading.Thread],
    group_members: Callable[[int], list[int]],
) -> None:
    Stage.objects.filter(pk=evaluate.pk).update(devices=2)
    child("stubborn")  # it, and what it has started, are deaf to SIGTERM

    worker = at_work("node/1")
    note = files.segments_folder(evaluate) / "group"
    wait_until(lambda: note.exists() and note.read_text())
    group = int(note.read_text())
    held = Device.objects.filter(request__stage=evaluate).order_by("name")
    assert seen_by(group) == list(held.values_list("name", flat=True)) == ["GPU-0", "GPU-1"]
    assert len(group_members(group)) == 2
    asked = time.monotonic()
    services.cancel_run(run)
    worker.join(timeout=30)
    assert not worker.is_alive()
    assert time.monotonic() - asked < 10
    assert group_members(group) == []
    assert not DeviceRequest.objects.exists()
    assert Device.objects.filter(request=None).count() == 3
    shards = Shard.objects.filter(stage__run=run)
    assert set(shards.values_list("state", "lease_token")) == {(State.CANCELLED, None)}


def test_a_stage_of_more_devices_than_the_host_has_is_left_to_others(
    devices: list[Sample], run: Run, evaluate: Stage, child: Callable[[str], None]
) -> None:
    Stage.objects.filter(pk=evaluate.pk).update(devices=4)
    child("well")
    do_work("node/1", ["gpu"])
    assert set(evaluate.shards.values_list("state", "attempts")) == {(State.QUEUED, 0)}
    assert not DeviceRequest.objects.exists()

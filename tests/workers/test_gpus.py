"""Devices: held by one at a time, granted whole, oldest wish first, and free after a death."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pynvml
import pytest
from django.db import transaction
from django.db.models.functions import Now
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from webapp.projects.access import first_project
from webapp.runs import hosts, leases
from webapp.runs.models import Device, DeviceRequest, Run, Shard, Stage, State
from workers import gpus, queues
from workers.gpus import Grant, Sample
from workers.tasks import stages

HOST = "node"
DEVICES = 4
STAGES = 6
NAMES = [f"GPU-{i}" for i in range(DEVICES)]


def samples(count: int = DEVICES) -> list[Sample]:
    return [Sample(f"GPU-{i}", "Fake", 80 << 30, i << 30, 10 * i) for i in range(count)]


def make_stages(owner: Any, counts: list[int]) -> list[Stage]:
    run = Run.objects.create(
        project=first_project(), kind="evaluation", name="r", config={}, owner=owner
    )
    return [
        Stage.objects.create(
            run=run, position=i, kind="evaluate", title=str(i), state=State.QUEUED, queue="gpu",
            devices=count,
        )
        for i, count in enumerate(counts)
    ]  # fmt: skip


class Host:
    """What a host's workers hold, as they believe it; dead ones believe nothing."""

    def __init__(self, owner: Any, counts: list[int]) -> None:
        gpus.record(HOST, samples())
        self.stages = make_stages(owner, counts)
        self.held: list[Grant] = []

    def ask(self, number: int) -> bool:
        stage = self.stages[number]
        grant = gpus.acquire(HOST, stage.pk, stage.devices, f"w{number}", NAMES)
        if grant is not None:
            assert len(grant.devices) == stage.devices  # whole
            self.held.append(grant)
        self.check()
        return grant is not None

    def give_back(self, grant: Grant) -> None:
        self.held.remove(grant)
        gpus.give_back(grant)
        self.check()

    def die(self, grant: Grant) -> None:
        """The worker renews no more, and the time of its lease passes."""
        self.held.remove(grant)
        past = Now() - timedelta(seconds=1)
        DeviceRequest.objects.filter(pk=grant.request_id).update(expires_at=past)
        assert not gpus.renew(grant)

    def check(self) -> None:
        held = [name for grant in self.held for name in grant.devices]
        assert len(held) == len(set(held)), "a device is held twice"
        rows = Device.objects.filter(host=HOST, request__isnull=False)
        assert set(rows.values_list("name", flat=True)) == set(held)
        assert all(gpus.renew(grant) for grant in self.held)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_no_device_is_held_twice_and_every_wish_is_met(user: Any, data: st.DataObject) -> None:
    with transaction.atomic():
        counts = data.draw(
            st.lists(st.integers(1, DEVICES), min_size=STAGES, max_size=STAGES), "devices wanted"
        )
        host = Host(user, counts)
        waiting: list[int] = []
        for _ in range(data.draw(st.integers(1, 12), "steps")):
            act = data.draw(st.sampled_from(("ask", "ask", "give back", "die")))
            if act == "ask":
                number = data.draw(st.integers(0, STAGES - 1))
                if host.ask(number):
                    waiting = [n for n in waiting if n != number]
                elif number not in waiting:
                    waiting.append(number)
            elif host.held:
                grant = data.draw(st.sampled_from(host.held))
                host.give_back(grant) if act == "give back" else host.die(grant)
        # From here on work ends and nothing new comes: all that waited get their turn, in order.
        while waiting:
            for number in data.draw(st.permutations(waiting)):
                if host.ask(number):
                    assert number == waiting[0] or counts[number] <= DEVICES
                    waiting.remove(number)
            if waiting:
                assert host.held, "devices are free, and nobody gets them"
                host.give_back(data.draw(st.sampled_from(host.held)))
        for grant in list(host.held):
            host.give_back(grant)
        hosts.free_devices()
        assert not DeviceRequest.objects.exists()
        assert not Device.objects.filter(request__isnull=False).exists()
        transaction.set_rollback(True)


def test_small_wishes_that_keep_coming_do_not_starve_a_large_one(user: Any) -> None:
    host = Host(user, [1] * 20 + [DEVICES])
    for number in range(DEVICES):
        assert host.ask(number)
    large = len(host.stages) - 1
    assert not host.ask(large)
    for number in range(DEVICES):
        host.give_back(host.held[0])
        # However often younger ones ask: what is free is kept for the older wish.
        assert not host.ask(DEVICES + number)
        if host.ask(large):
            break
    assert len(host.held) == 1
    assert len(host.held[0].devices) == DEVICES


def test_a_younger_wish_may_pass_where_the_older_one_loses_nothing(user: Any) -> None:
    host = Host(user, [3, 2, 1])
    assert host.ask(0)  # one device is left
    assert not host.ask(1)
    assert not host.ask(2)  # that one is kept for the older wish of two
    host.give_back(host.held[0])
    assert host.ask(2)  # four free, two of them kept
    assert host.ask(1)


def test_a_wish_that_nobody_renews_keeps_nothing(user: Any) -> None:
    host = Host(user, [1, DEVICES, 1])
    assert host.ask(0)
    assert not host.ask(1)
    assert not host.ask(2)
    DeviceRequest.objects.filter(stage=host.stages[1]).update(
        expires_at=Now() - timedelta(seconds=1)
    )
    assert host.ask(2)


def test_grants_outlast_the_leases_of_shards(user: Any, settings: Any) -> None:
    host = Host(user, [1])
    assert host.ask(0)
    request = DeviceRequest.objects.get()
    assert request.granted_at is not None
    lasts = (request.expires_at - request.granted_at).total_seconds()
    assert lasts >= 1.5 * settings.RETORT_LEASE_SECONDS


def test_samples_follow_cuda_visible_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "inventory", samples)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert len(gpus.samples()) == DEVICES
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-0")
    assert [sample.name for sample in gpus.samples()] == ["GPU-2", "GPU-0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1, GPU-1,9")
    assert [sample.name for sample in gpus.samples()] == ["GPU-1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert gpus.samples() == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus.samples() == []


def test_a_lost_device_takes_no_other_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four devices the driver has lost the second, and the third tells no name."""

    def refused(*_: Any) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)

    driver: dict[str, Any] = {
        "Init": lambda: None,
        "Shutdown": lambda: None,
        "DeviceGetCount": lambda: 4,
        "DeviceGetHandleByIndex": lambda index: refused() if index == 1 else index,
        "DeviceGetUUID": lambda handle: refused() if handle == 2 else f"GPU-{handle}",
        "DeviceGetName": refused,
        "DeviceGetMemoryInfo": refused,
        "DeviceGetUtilizationRates": refused,
    }
    for name, function in driver.items():
        monkeypatch.setattr(pynvml, f"nvml{name}", function)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus.samples() == [Sample("GPU-0"), Sample("GPU-3")]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,3")
    assert gpus.samples() == [Sample("GPU-3")], "the others keep their numbers"


@pytest.mark.parametrize(
    ("there", "chosen", "given"),
    [(samples()[1:], None, "GPU-1"), (samples(), "3", "GPU-3"), (samples(), "GPU-2,0", "GPU-0")],
)
def test_a_worker_is_granted_what_it_sees_now(
    user: Any, monkeypatch: pytest.MonkeyPatch, settings: Any,
    there: list[Sample], chosen: str | None, given: str,
) -> None:  # fmt: skip
    """Of the host's rows some may be of devices that are gone, or that are other workers'."""
    settings.RETORT_HOST = HOST
    host = Host(user, [1])
    Shard.objects.create(stage=host.stages[0], index=0)
    monkeypatch.setattr(gpus, "inventory", lambda: there)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    claimed = stages._claim("w1", ["gpu"])
    assert claimed is not None
    assert claimed[2] is not None
    assert claimed[2].devices == (given,)


@pytest.mark.parametrize(
    ("devices", "on_cpu", "gpu", "most"),
    [(0, False, False, 0), (0, True, True, None), (2, False, True, 2), (2, True, True, 2)],
)
def test_the_cpu_stands_in_only_where_it_is_said(
    monkeypatch: pytest.MonkeyPatch, settings: Any, devices: int, on_cpu: bool, gpu: bool, most: Any
) -> None:
    monkeypatch.setattr(gpus, "inventory", lambda: samples(devices))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    settings.RETORT_GPU_QUEUE_ON_CPU = on_cpu
    assert ("gpu" in queues.served()) == gpu
    assert queues.most_devices() == most


def test_without_devices_left_a_worker_does_what_needs_none(
    user: Any, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.RETORT_HOST = HOST
    monkeypatch.setattr(gpus, "inventory", samples)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    host = Host(user, [DEVICES, 2, DEVICES + 1])
    plain = Stage.objects.create(
        run=host.stages[0].run, position=9, kind="filter", title="f", state=State.QUEUED
    )
    for stage in (*host.stages, plain):
        Shard.objects.create(stage=stage, index=0)
    first = stages._claim("w1", ["gpu", "cpu"])
    assert first is not None
    assert (first[1], first[2] is not None) == (host.stages[0], True)
    second = stages._claim("w2", ["gpu", "cpu"])
    assert second is not None
    assert (second[1], second[2]) == (plain, None)
    # The wish waits, its shard is anybody's; what needs more than the host has is never claimed.
    assert DeviceRequest.objects.get(granted_at=None).stage == host.stages[1]
    shard = Shard.objects.get(stage=host.stages[1])
    assert (shard.state, shard.attempts) == (State.QUEUED, 0)
    assert stages._claim("w3", ["gpu", "cpu"]) is None
    assert first[2] is not None
    gpus.give_back(first[2])
    third = stages._claim("w3", ["gpu", "cpu"])
    assert third is not None
    assert third[2] is not None
    assert third[1] == host.stages[1]
    assert leases.claim("w4", max_devices=DEVICES) is None

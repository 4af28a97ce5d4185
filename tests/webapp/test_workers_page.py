"""The workers page: who is there, what they do, and who may drain them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now
from django.urls import reverse

from webapp.projects.access import first_project
from webapp.runs import hosts, leases
from webapp.runs.ledger import Usage
from webapp.runs.models import Device, DeviceRequest, Run, Shard, Stage, State, WorkerHeartbeat

GIB = 1 << 30


@pytest.fixture
def scene(user: Any) -> Stage:
    """Two hosts: one with devices, a busy worker and a silent one; one with an idle worker."""
    run = Run.objects.create(
        project=first_project(),
        kind="evaluation",
        name="tiny on <b>AIME</b>",
        config={},
        owner=user,
    )
    stage = Stage.objects.create(
        run=run, position=0, kind="evaluate", title="Evaluate tiny", state=State.QUEUED,
        queue="gpu", devices=1,
    )  # fmt: skip
    Shard.objects.bulk_create(Shard(stage=stage, index=i, total=100) for i in range(3))
    hosts.greet("alpha/11", "alpha", ["gpu", "cpu"])
    hosts.greet("alpha/12", "alpha", ["gpu", "cpu"])
    hosts.greet("beta/7", "beta", ["cpu", "upkeep"])
    WorkerHeartbeat.objects.filter(name="alpha/12").update(seen_at=Now() - timedelta(minutes=5))
    assert leases.claim("alpha/11") is not None
    request = DeviceRequest.objects.create(
        host="alpha", stage=stage, count=1, worker="alpha/11", created_at=Now(), granted_at=Now(),
        expires_at=Now() + timedelta(minutes=1),
    )  # fmt: skip
    for index in range(2):
        Device.objects.create(
            host="alpha", name=f"GPU-{index}", model="NVIDIA H200", memory_total_bytes=141 * GIB,
            memory_used_bytes=(120 if index == 0 else 0) * GIB, utilisation_percent=97 - 97 * index,
            sampled_at=Now(), request=request if index == 0 else None,
        )  # fmt: skip
    return stage


def test_the_page_shows_hosts_devices_and_what_each_does(
    client: Any, user: Any, scene: Stage, django_assert_max_num_queries: Any
) -> None:
    client.force_login(user)
    with django_assert_max_num_queries(12):
        page = client.get(reverse("runs:workers")).content.decode()
    for text in ("alpha/11", "Evaluate tiny, shard 0", "silent; probably gone", "beta", "97 %",
                 "120.0\xa0GB of 141.0\xa0GB", "free", "&lt;b&gt;AIME"):  # fmt: skip
        assert text in page, text
    assert "which no worker serves" not in page
    assert "Drain" not in page  # only for staff
    assert "<b>AIME" not in page


def test_the_last_hour_of_a_worker_is_told(client: Any, user: Any, scene: Stage) -> None:
    claim = leases.claim("beta/7", only_stage=scene.pk)
    assert claim is not None
    leases.record_usage(claim, Usage(cpu_seconds=75, completion_tokens=1200))
    leases.fail_shard(claim, "it broke", transient=True)
    client.force_login(user)
    page = client.get(reverse("runs:workers_live")).content.decode()
    assert "1 shard, 1 of them unfinished" in page
    assert "1 min 15 s of CPU, 1.2k tokens" in page


def test_a_queue_that_nobody_serves_is_told(client: Any, user: Any, scene: Stage) -> None:
    client.force_login(user)
    WorkerHeartbeat.objects.filter(host="alpha").update(draining=True)
    page = client.get(reverse("runs:workers_live")).content.decode()
    assert "2 shards wait in queue gpu, which no worker serves" in page
    assert "RETORT_GPU_QUEUE_ON_CPU" in page


def test_staff_drain_a_worker_and_take_it_back(
    client: Any, user: Any, admin: Any, scene: Stage
) -> None:
    worker = WorkerHeartbeat.objects.get(name="alpha/11")
    address = reverse("runs:drain", args=[worker.pk])
    client.force_login(user)
    assert client.post(address, {"draining": "1"}).status_code == 403
    assert leases.claim("alpha/11") is not None
    client.force_login(admin)
    assert client.get(address).status_code == 405
    page = client.post(address, {"draining": "1"}, follow=True).content.decode()
    assert "takes no further one" in page
    assert "Take back" in page
    assert leases.claim("alpha/11") is None
    client.post(address, {"draining": "0"})
    assert leases.claim("alpha/11") is not None


def test_without_workers_the_page_says_how_to_start_one(client: Any, user: Any) -> None:
    client.force_login(user)
    assert "python -m workers" in client.get(reverse("runs:workers")).content.decode()

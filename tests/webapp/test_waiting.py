"""A run that waits says for what; and the page of turns lets those who may change it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now
from django.urls import reverse

from tests.webapp.samples import make_run
from webapp.runs import hosts, leases, waiting
from webapp.runs.models import Device, DeviceRequest, Run, Shard, Stage, State

pytestmark = pytest.mark.django_db


@pytest.fixture
def run(user: Any) -> Run:
    made = make_run(user, "r", Run.Kind.EVALUATION, State.QUEUED)
    stage = Stage.objects.create(
        run=made, position=0, kind="evaluate", title="t", state="queued", queue="gpu", devices=2
    )
    Shard.objects.create(stage=stage, index=0)
    return made


def devices(host: str, count: int) -> None:
    for index in range(count):
        Device.objects.create(host=host, name=str(index), sampled_at=Now())


def test_every_reason_is_named_until_it_is_done(
    run: Run, user: Any, django_assert_max_num_queries: Any
) -> None:
    def told() -> str:
        with django_assert_max_num_queries(1 + 7):
            return waiting.reason(Run.objects.get(pk=run.pk))

    assert told().startswith("No worker serves the queue gpu")
    hosts.greet("small/1", "small", ["gpu", "cpu"])
    devices("small", 1)
    assert "needs 2 devices of one host, and the largest that is up has 1" in told()
    devices("large", 2)
    assert "has 1" in told()  # nobody works there
    hosts.greet("large/1", "large", ["gpu"])
    assert told() == "Every worker is busy with others."
    DeviceRequest.objects.create(
        host="large", stage=run.stages.get(), count=2, created_at=Now(),
        expires_at=Now() + timedelta(hours=1),
    )  # fmt: skip
    assert told() == "It waits for 2 devices of large, where 2 are free by now."
    user.max_running_shards = 0
    user.save()
    assert told() == "ada may have 0 shards being done at a time, and has as many."
    user.max_running_shards = None
    user.save()
    assert leases.claim("large/1") is not None
    assert told() == ""


def test_a_cpu_that_stands_in_needs_no_devices(run: Run) -> None:
    hosts.greet("laptop/1", "laptop", ["gpu"])
    assert waiting.reason(run) == "Every worker is busy with others."


def test_a_failure_that_is_tried_again_is_no_want_of_workers(run: Run) -> None:
    Shard.objects.update(not_before=Now() + timedelta(minutes=5))
    assert waiting.reason(run) == "What failed is tried again in a moment."


def test_the_runs_page_and_list_show_it(client: Any, user: Any, run: Run) -> None:
    client.force_login(user)
    Run.objects.update(priority=3)
    assert "No worker serves the queue gpu" in client.get(run.get_absolute_url()).content.decode()
    assert "priority 3" in client.get(reverse("runs:index")).content.decode()


def test_staff_set_priorities_and_limits_on_the_page(
    client: Any, admin: Any, user: Any, run: Run, django_assert_max_num_queries: Any
) -> None:
    client.force_login(admin)
    client.post(reverse("runs:priority", args=[run.pk]), {"priority": "9"})
    client.post(reverse("runs:limit", args=[user.pk]), {"limit": "4"})
    run.refresh_from_db()
    user.refresh_from_db()
    assert (run.priority, user.max_running_shards) == (9, 4)
    with django_assert_max_num_queries(10):
        page = client.get(reverse("runs:turns")).content.decode()
    assert 'value="9"' in page
    assert 'value="4"' in page
    client.post(reverse("runs:limit", args=[user.pk]), {"limit": ""})
    user.refresh_from_db()
    assert user.max_running_shards is None


@pytest.mark.parametrize("sent", ["", "much", "1e3", "101"])
def test_a_priority_that_is_none_changes_nothing(
    client: Any, admin: Any, run: Run, sent: str
) -> None:
    client.force_login(admin)
    answer = client.post(reverse("runs:priority", args=[run.pk]), {"priority": sent}, follow=True)
    assert "priority: " in answer.content.decode()
    run.refresh_from_db()
    assert run.priority == 0


def test_others_see_the_page_and_change_nothing(client: Any, user: Any, run: Run) -> None:
    client.force_login(user)
    assert client.post(reverse("runs:limit", args=[user.pk]), {"limit": "9"}).status_code == 403
    client.post(reverse("runs:priority", args=[run.pk]), {"priority": "1"})
    run.refresh_from_db()
    assert run.priority == 0
    client.post(reverse("runs:priority", args=[run.pk]), {"priority": "-2"})
    run.refresh_from_db()
    assert run.priority == -2
    page = client.get(reverse("runs:turns")).content.decode()
    assert reverse("runs:limit", args=[user.pk]) not in page

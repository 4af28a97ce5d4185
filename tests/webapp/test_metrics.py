"""Metrics: what the database says, in Prometheus' words, for those who may read it."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.db import DatabaseError, connection
from django.db.models.functions import Now
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from prometheus_client.parser import text_string_to_metric_families

from tests.webapp import samples
from tests.webapp.test_ledger import launch
from webapp.checkpoints.models import Upload, UploadFile
from webapp.monitoring import latency, metrics
from webapp.projects.access import first_project
from webapp.runs import hosts, leases, stages
from webapp.runs.ledger import Usage
from webapp.runs.models import Device, DeviceRequest, Run, Shard, Stage, State, WorkerHeartbeat

ROOT = Path(__file__).resolve().parents[2]
GIB = 1 << 30
# https://prometheus.io/docs/practices/naming/
NAME = re.compile(r"retort(_[a-z]+)+")


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "ring", lambda stage, times: None)


def scrape() -> dict[tuple[Any, ...], float]:
    """{(name, label values by label name …): value} of what Prometheus would read."""
    found = {}
    for family in text_string_to_metric_families(metrics.exposition().decode()):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            assert (sample.name, *labels) not in found
            found[sample.name, *labels] = sample.value
    return found


@pytest.fixture
def scene(user: Any) -> Run:
    """Leases of every end, workers, devices and uploads."""
    run = launch(user, shards=6)
    claims = [leases.claim(f"alpha/{number}") for number in range(4)]
    finished, retried, lost, held = [claim for claim in claims if claim is not None]
    for claim, seconds in ((finished, 100), (retried, 10), (lost, 50), (held, 30)):
        Shard.objects.filter(pk=claim.shard_id).update(leased_at=Now() - timedelta(seconds=seconds))
        leases.record_usage(
            claim,
            Usage(devices=2, cpu_seconds=seconds / 2, prompt_tokens=7, completion_tokens=11),
        )
    leases.finish_shard(finished, {})
    leases.record_usage(retried, Usage(cpu_seconds=5, cause="out_of_memory"))
    leases.fail_shard(retried, "no memory", transient=True)
    Shard.objects.filter(pk=lost.shard_id).update(lease_expires_at=Now() - timedelta(seconds=20))
    Stage.objects.filter(pk=held.stage_id).update(tokens_per_second=120.5)
    Shard.objects.filter(state=State.QUEUED, not_before=None).update(
        updated_at=Now() - timedelta(seconds=300)
    )
    hosts.greet("alpha/1", "alpha", ["gpu", "cpu"])
    hosts.greet("alpha/2", "alpha", ["gpu"])
    hosts.greet("beta/3", "beta", ["cpu"])
    WorkerHeartbeat.objects.filter(name="alpha/2").update(draining=True)
    WorkerHeartbeat.objects.filter(name="beta/3").update(seen_at=Now() - timedelta(minutes=9))
    request = DeviceRequest.objects.create(
        host="alpha", stage_id=held.stage_id, count=1, worker="alpha/1", created_at=Now(),
        granted_at=Now(), expires_at=Now() + timedelta(minutes=1),
    )  # fmt: skip
    for number in range(2):
        Device.objects.create(
            host="alpha", name=f"GPU-{number}", memory_total_bytes=80 * GIB,
            memory_used_bytes=(10 + number) * GIB, utilisation_percent=50 if number else None,
            sampled_at=Now(), request=None if number else request,
        )  # fmt: skip
    upload = Upload.objects.create(project=first_project(), owner=user, name="big")
    UploadFile.objects.create(upload=upload, path="a", length_bytes=50, offset_bytes=30)
    UploadFile.objects.create(upload=upload, path="b", length_bytes=50, offset_bytes=12)
    samples.make_checkpoint(user, "kept", size_bytes=1000)
    return run


def test_figures_are_what_the_database_says(scene: Run) -> None:
    found = scrape()
    exact = {
        ("retort_database_up",): 1,
        ("retort_queue_claimable_shards", "gpu"): 3,  # two fresh ones, one whose lease ran out
        ("retort_queue_claimable_shards", "judge"): 0,
        ("retort_queue_running_shards", "gpu"): 1,
        ("retort_stage_tokens_per_second", "generate"): 120.5,
        ("retort_leases_ended_total", "finished", "generate"): 1,
        ("retort_leases_ended_total", "retried", "generate"): 1,
        ("retort_shard_failures_total", "out_of_memory"): 1,
        ("retort_shard_failures_total", "transient"): 0,
        ("retort_tokens_total", "prompt", "generate"): 7,
        ("retort_tokens_total", "completion", "generate"): 11,
        ("retort_cpu_seconds_total", "generate"): 55,
        ("retort_cpu_seconds_lost_total", "generate"): 5,
        ("retort_devices", "alpha"): 2,
        ("retort_devices_held", "alpha"): 1,
        ("retort_device_memory_used_bytes", "GPU-1", "alpha"): 11 * GIB,
        ("retort_device_memory_total_bytes", "GPU-0", "alpha"): 80 * GIB,
        ("retort_device_utilisation_ratio", "GPU-1", "alpha"): 0.5,
        ("retort_workers", "gpu"): 1,  # the other one drains
        ("retort_workers", "cpu"): 1,  # the other one is silent
        ("retort_workers", "judge"): 0,
        ("retort_upload_bytes", "receiving"): 42,
        ("retort_checkpoint_bytes",): 1000,
        ("retort_runs", "running"): 1,
        ("retort_runs", "failed"): 0,
    }
    assert {key: found.get(key) for key in exact} == exact
    about = {
        ("retort_queue_oldest_claimable_seconds", "gpu"): 300,
        ("retort_queue_oldest_lease_seconds", "gpu"): 30,
        ("retort_device_seconds_total", "generate"): 200,
        ("retort_lease_seconds_total", "generate"): 110,
        ("retort_worker_heartbeat_age_seconds", "beta/3"): 540,
    }
    for key, value in about.items():
        assert found[key] == pytest.approx(value, abs=15), key
    assert ("retort_device_utilisation_ratio", "GPU-0", "alpha") not in found  # not known, not 0
    assert found["retort_disk_free_bytes", "var"] <= found["retort_disk_size_bytes", "var"]


def test_a_shard_waits_since_the_stage_before_it_ended(user: Any) -> None:
    run = launch(user, shards=1)
    first, second = run.stages.order_by("position")
    Shard.objects.update(updated_at=Now() - timedelta(hours=5))
    Shard.objects.filter(stage=first).update(state=State.FINISHED)
    Stage.objects.filter(pk=first.pk).update(
        state=State.FINISHED, finished_at=Now() - timedelta(minutes=2)
    )
    Stage.objects.filter(pk=second.pk).update(state=State.QUEUED)
    waited = scrape()["retort_queue_oldest_claimable_seconds", "gpu"]
    assert waited == pytest.approx(120, abs=15)


def test_the_number_of_queries_is_fixed(scene: Run, user: Any) -> None:
    for _ in range(2):
        with CaptureQueriesContext(connection) as queries:
            metrics.exposition()
        assert len(queries) == metrics.QUERIES
        for number in range(5):
            launch(user, shards=9)
            hosts.greet(f"gamma/{number}", "gamma", ["cpu"])


def test_names_follow_prometheus_conventions(scene: Run) -> None:
    latency.observe("runs:index", "GET", 200, 0.1)
    for family in text_string_to_metric_families(metrics.exposition().decode()):
        assert NAME.fullmatch(family.name), family.name
        assert family.documentation.endswith("."), family.name
        assert not any(unit in family.name for unit in ("milli", "minutes", "percent", "_mib"))
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)


def test_without_the_database_the_rest_is_told(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> None:
        raise DatabaseError("the server is away")

    monkeypatch.setattr(metrics, "_devices", away)
    found = scrape()
    assert found["retort_database_up",] == 0
    assert ("retort_disk_free_bytes", "files") in found
    assert not any(name.startswith("retort_queue") for name, *_ in found)


def test_answers_are_counted_by_view(db: None) -> None:
    key = "GET", "2xx", "core:login"
    before = scrape().get(("retort_http_request_duration_seconds_count", *key), 0)
    Client().get(reverse("core:login"))
    Client().generic("BREW", "/runs/1/")
    found = scrape()
    assert found["retort_http_request_duration_seconds_count", *key] == before + 1
    buckets = [
        value for (name, *labels), value in found.items()
        if name.endswith("_bucket") and labels[0] == "+Inf" and tuple(labels[1:]) == key
    ]  # fmt: skip
    assert buckets == [before + 1]
    methods = {labels[0] for (name, *labels) in found if name.endswith("seconds_count")}
    assert "other" in methods
    assert "BREW" not in methods


# --- who may read them


@pytest.mark.parametrize(
    ("token", "sent", "address", "passed_on", "status"),
    [
        ("", None, "127.0.0.1", {}, 200),
        ("", None, "::1", {}, 200),
        ("", None, "10.0.0.1", {}, 404),
        ("", None, "", {}, 404),
        ("", None, "127.0.0.1", {"x-forwarded-for": "8.8.8.8"}, 404),
        ("", None, "127.0.0.1", {"x-forwarded-proto": "https"}, 404),
        ("", "Bearer ", "10.0.0.1", {}, 404),
        ("token", None, "127.0.0.1", {}, 404),
        ("token", "Bearer token", "10.0.0.1", {"x-forwarded-for": "8.8.8.8"}, 200),
        ("token", "Bearer tokem", "127.0.0.1", {}, 404),
        ("token", "Bearer tök", "127.0.0.1", {}, 404),
        ("token", "token", "127.0.0.1", {}, 404),
    ],
)
def test_only_the_host_itself_or_the_tokens_holder_reads_metrics(
    db: None, settings: Any, token: str, sent: str | None, address: str,
    passed_on: dict[str, str], status: int,
) -> None:  # fmt: skip
    settings.RETORT_METRICS_TOKEN = token
    headers = passed_on | ({} if sent is None else {"authorization": sent})
    response = Client(headers=headers).get("/metrics", REMOTE_ADDR=address)
    assert response.status_code == status
    if status == 200:
        assert response["content-type"] == metrics.CONTENT_TYPE
        assert b"retort_database_up 1.0" in response.content
    else:
        assert b"retort_" not in response.content


# --- alerts


def test_alerts_ask_for_metrics_that_exist(scene: Run) -> None:
    latency.observe("runs:index", "GET", 500, 0.1)
    known = {name for name, *_ in scrape()} | {"up"}
    rules = yaml.safe_load((ROOT / "deploy" / "monitoring" / "alerts.yaml").read_text())
    names = []
    for group in rules["groups"]:
        for rule in group["rules"]:
            names.append(rule["alert"])
            assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
            assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s"))
            assert rule["labels"]["severity"] in {"page", "ticket"}
            assert rule["annotations"]["summary"].endswith(".")
            used = set(re.findall(r"\b(?:retort_\w+|up)\b", rule["expr"]))
            assert used, rule["alert"]
            assert used <= known, used - known
            assert rule["expr"].count("(") == rule["expr"].count(")")
    assert len(names) == len(set(names)) >= 8


def test_the_dashboard_shows_metrics_that_exist(scene: Run) -> None:
    latency.observe("runs:index", "GET", 200, 0.1)
    known = {name for name, *_ in scrape()}
    dashboard = json.loads((ROOT / "deploy" / "monitoring" / "dashboard.json").read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) == 12
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(panels)
    for panel in panels:
        for target in panel["targets"]:
            used = set(re.findall(r"\bretort_\w+", target["expr"]))
            assert used, panel["title"]
            assert used <= known, used - known
            assert target["expr"].count("(") == target["expr"].count(")")

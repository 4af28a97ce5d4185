"""One hostile installation: whatever somebody else may write holds markup that would do something.

Every text column that no code gives a meaning to is filled, by the models' own lists of fields: one
that is added tomorrow is attacked without a word here.
"""

from __future__ import annotations

import json
from typing import Any

from django.apps import apps
from django.contrib.postgres.fields import ArrayField
from django.db.models import CharField, EmailField, Field, SlugField, TextField
from django.utils import timezone

from tests.webapp import samples
from tests.webapp.access_world import ADMIN, MARK, OWNER, PROBLEMS, World
from webapp.benchmarks.models import Contest, RatingPopulation
from webapp.checkpoints.models import Upload
from webapp.core import audit
from webapp.notifications.models import Notification, Preference
from webapp.runs import files
from webapp.runs.models import Device, Run, Stage, TrainingPoint

# A quote of each kind, then an element, a script, handlers, an address that runs, a template's
# marks, and what htmx would act upon; whole in any column of 20 characters or more.
SHORT = "'\"><zq-hole zqattr>"
LONG = (
    f"{SHORT}</script></title></textarea></pre></style><script>window.stolen=1</script>"
    '<img src=x onerror="window.stolen=1"><a href="javascript:window.stolen=1">a</a>'
    '<b hx-on:click="window.stolen=1" hx-get="https://evil.example/" hx-trigger="load">b</b>'
    "<link rel=stylesheet href=https://evil.example/><iframe src=https://evil.example/></iframe>"
    "{{ 7|add:7 }}{% debug %}${7*7}"
)
# What code reads as more than a text: names of files, hashes, words of a fixed list.
_MEANT = frozenset((
    "password", "path", "content_hash", "sha256", "digest", "hash", "sealed_key", "sealed_secret",
    "measurement_hash", "run_fingerprint", "state", "kind", "queue", "grader", "outcome", "role",
    "finish_reason", "form", "channel", "scope", "scoring", "secret_hash", "prefix", "claim",
    "cause", "ended", "lease_token", "session_key", "session_data", "app_label", "model",
    "codename", "source",
))  # fmt: skip
# Written by other means (below), or by nobody but the code.
_OTHERS = frozenset(("Session", "ContentType", "Permission", "Group", "AuditEntry", "Segment"))


def columns(model: Any) -> list[Field[Any, Any]]:
    """Those of a model's columns that hold somebody's words."""
    return [
        column
        for column in model._meta.fields
        if isinstance(column, CharField | TextField)
        and not isinstance(column, SlugField)
        and not column.choices
        and column.name not in _MEANT
    ]


def words(column: Field[Any, Any], key: Any) -> str:
    """The attack for one column of one row, unlike any other row's."""
    most = column.max_length or 10_000
    text = f"{LONG} {column.name} {key}"
    return text if len(text) <= most else f"{SHORT}{key}"[:most]


def poison() -> int:
    """Fill every such column of every row; returns how many were filled."""
    filled = 0
    for model in apps.get_models():
        if model.__name__ in _OTHERS:
            continue
        for row in model._default_manager.all():
            found = {c.name: words(c, row.pk) for c in columns(model)}
            for column in model._meta.fields:
                if isinstance(column, ArrayField):
                    found[column.name] = [SHORT, "b"]
                if isinstance(column, EmailField):
                    found[column.name] = f"{SHORT}@example.org"
            if found:
                model._default_manager.filter(pk=row.pk).update(**found)
                filled += len(found)
    return filled


def draw(rng: Any, problem: Any, sample: int) -> Any:
    """A model that attacks whoever reads it."""
    outcome = samples.Outcome.CORRECT if sample % 2 == 0 else samples.Outcome.WRONG
    return (
        f"<think>\n{LONG}\n</think>\n{LONG} $\\href{{javascript:stolen=1}}{{x}}$",
        outcome,
        LONG,
        LONG,
    )


def build(world: World) -> World:
    """The hostile installation, from the one that the table of who may do what walks."""
    owner, project = world.people[OWNER], world.project
    found = samples.make_evaluation(
        owner, samples.make_checkpoint(owner, "hostile", project=project),
        samples.make_benchmark(PROBLEMS, name="custom"), PROBLEMS, samples=2, draw=draw,
    )  # fmt: skip
    found.metrics["by"]["subject"] = {
        LONG: next(iter(found.metrics["by"]["subject"].values())),
        "b": next(iter(found.metrics["by"]["subject"].values())),
    }
    found.engine |= {"versions": {LONG: LONG}, "hardware": LONG, "name": LONG}
    found.save()
    world.keys |= {
        "evaluation": found.pk, "checkpoint": found.checkpoint_id, "finished": found.run_id,
        "problem": found.benchmark.problems.earliest("pk").pk, "benchmark": found.benchmark_id,
    }  # fmt: skip
    _run_under_way(world)
    _beside(world)
    assert poison() > 100
    audit.record(owner, "run.cancel", found.run, reason=LONG)
    return world


def _run_under_way(world: World) -> None:
    run = Run.objects.get(pk=world.keys["running"])
    filtered, train = run.stages.all()
    reasons = {SHORT: 2}
    filtered.result["funnel"] = {
        "steps": [
            {"step": "drawn", "kept": 3, "dropped": 0, "reasons": {}},
            {"step": LONG, "kept": 1, "dropped": 2, "reasons": reasons},
        ]
    }
    filtered.save()
    TrainingPoint.objects.create(stage=train, step=1, values={"loss": 1.0})
    checked = Stage.objects.get(run=world.keys["check"])
    folder = files.stage_folder(checked)
    folder.mkdir(parents=True, exist_ok=True)
    report = {
        "checks": [{"name": LONG, "level": "warning", "detail": LONG}], "errors": 0, "warnings": 1,
        "figures": {}, "example": [{"text": LONG, "supervised": True}],
    }  # fmt: skip
    (folder / "preflight.json").write_text(json.dumps(report))


def _beside(world: World) -> None:
    """What else has names, and what strangers' servers answered."""
    owner, project = world.people[OWNER], world.project
    for person in (owner, world.people[ADMIN]):
        Preference.objects.create(
            user=person, webhook_url="x", email="x@example.org", since=timezone.now()
        )
    run = Run.objects.get(pk=world.keys["finished"])
    Notification.objects.create(
        user=owner, run=run, state="finished", ended_at=timezone.now(), channel="webhook", error="x"
    )
    Upload.objects.create(
        owner=owner, project=project, name=f"{MARK}-refused", state=Upload.State.REFUSED, reason="x"
    )
    Contest.objects.create(
        contest_id="1", name="x", scoring="icpc", participants=1, problem_count=1, content_hash="x",
        path="x",
    )  # fmt: skip
    RatingPopulation.objects.create(name="x", size=1, content_hash="y", path="x")
    Device.objects.create(host="host", name="0", model="x", sampled_at=timezone.now())

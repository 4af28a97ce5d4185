"""Checkpoints by the API: what is said of them, where they lie, where they come from."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from tests.webapp.api.rows import World, make_world, member
from tests.webapp.samples import make_checkpoint, make_run
from webapp.checkpoints import ancestry
from webapp.checkpoints.models import Checkpoint
from webapp.core.models import AuditEntry
from webapp.projects.access import ELSEWHERE, seen_projects
from webapp.projects.models import Membership, Project, Role
from webapp.runs.models import Run

pytestmark = pytest.mark.django_db


@pytest.fixture
def world(db: None) -> World:
    project = Project.objects.create(name="theirs")
    return make_world(member("olga", project, Role.OPERATOR), project, "theirs")


def edit(client: Client, key: int, **body: Any) -> Any:
    path = f"/api/v1/checkpoints/{key}"
    return client.patch(path, json.dumps(body), content_type="application/json")


def acts() -> set[str]:
    return set(AuditEntry.objects.values_list("action", flat=True))


def test_an_admin_of_both_moves_it(world: World, by_token: Callable[..., Client]) -> None:
    key, away = world.keys["checkpoints"], Project.objects.create(name="away")
    anna = member("anna", world.project, Role.ADMIN)
    Membership.objects.create(user=anna, project=away, role=Role.ADMIN)
    answer = edit(by_token(anna), key, project=away.pk, notes="moved")
    assert answer.status_code == 200, answer.content
    assert answer.json()["project"] == {"id": away.pk, "name": "away"}
    assert answer.json()["notes"] == "moved"
    assert {"checkpoint.describe", "checkpoint.move"} <= acts()
    assert edit(by_token(world.owner), key, notes="mine?").status_code == 404


def test_a_run_tells_no_product_that_was_moved_away(
    world: World, by_token: Callable[..., Client], admin: Any
) -> None:
    run = make_run(world.owner, "taught", Run.Kind.DISTILLATION, project=world.project)
    away = Project.objects.create(name="away")
    for project in (world.project, away):
        make_checkpoint(
            world.owner, f"child-{project.name}", project=project, produced_by=run,
        )  # fmt: skip
    for person, products in ((world.owner, 1), (admin, 2)):
        told = by_token(person).get(f"/api/v1/runs/{run.pk}").json()["products"]
        assert [each["name"] for each in told] == ["child-theirs", "child-away"][:products]


def test_nobody_else_moves_it_and_nothing_else_is_changed(
    world: World, by_token: Callable[..., Client]
) -> None:
    key, away = world.keys["checkpoints"], Project.objects.create(name="away")
    hidden = Project.objects.create(name="hidden")
    anna = member("anna", world.project, Role.ADMIN)
    Membership.objects.create(user=anna, project=away, role=Role.OPERATOR)
    told = [
        edit(by_token(person), key, project=project, notes="moved").json()
        for person in (anna, world.owner)
        for project in (away.pk, hidden.pk, 10**9)
    ]
    assert {each["field"] for each in told} == {"project"}
    assert len({each["sentence"] for each in told}) == 1  # of no project one learns that it is
    row = Checkpoint.objects.get(pk=key)
    assert (row.project, row.notes) == (world.project, "")
    assert not acts() & {"checkpoint.describe", "checkpoint.move"}
    assert edit(by_token(world.owner), key, project=world.project.pk).status_code == 200


def test_the_graph_is_the_pages(world: World, by_token: Callable[..., Client]) -> None:
    away = Project.objects.create(name="away")
    parent = make_checkpoint(world.owner, "a-parent", project=away)
    run = make_run(world.owner, "taught", Run.Kind.DISTILLATION, project=world.project)
    child = make_checkpoint(
        world.owner, "a-child", project=world.project, parent=parent, produced_by=run
    )
    client, seen = by_token(world.owner), seen_projects(world.owner)
    for path, graph in (
        (f"checkpoints/{child.pk}", ancestry.graph_of_checkpoint(child, seen)),
        (f"runs/{run.pk}", ancestry.graph_of_run(run, seen)),
        (f"runs/{world.keys['runs']}", ancestry.graph_of_run(Run.objects.get(
            pk=world.keys["runs"]), seen)),
    ):  # fmt: skip
        told = client.get(f"/api/v1/{path}/graph").json()
        assert [each["key"] for each in told["nodes"]] == list(graph.nodes)
        assert [(each["source"], each["target"]) for each in told["edges"]] == graph.edges
        assert len(told["nodes"]) > 1
    plain = make_checkpoint(world.owner, "b-child", project=world.project, parent=parent)
    told = client.get(f"/api/v1/checkpoints/{plain.pk}/graph").content.decode()
    assert ELSEWHERE in told
    assert "a-parent" not in told

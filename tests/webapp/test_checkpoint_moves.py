"""Moving a checkpoint to another project: by whom, when, and what goes with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse

from tests.webapp import samples
from webapp.checkpoints.models import Checkpoint, Upload
from webapp.core.models import AuditEntry
from webapp.endpoints import services as endpoints
from webapp.projects.access import first_project
from webapp.projects.models import Membership, Project, Role
from webapp.runs.models import Run, State

pytestmark = pytest.mark.django_db


@dataclass(frozen=True)
class Scene:
    """``user`` is admin of the first project and of the second one."""

    user: Any
    page: Client
    second: Project
    checkpoint: Checkpoint
    address: str


@pytest.fixture
def scene(user: Any) -> Scene:
    Membership.objects.filter(user=user).update(role=Role.ADMIN)
    second = samples.make_project("second", {user: Role.ADMIN})
    checkpoint = samples.make_checkpoint(user, "model")
    Upload.objects.create(
        owner=user, project=first_project(), name="model", state=Upload.State.REGISTERED,
        checkpoint=checkpoint,
    )  # fmt: skip
    page = Client()
    page.force_login(user)
    return Scene(user, page, second, checkpoint, reverse("checkpoints:edit", args=[checkpoint.pk]))


def moved(scene: Scene, to: Project | None = None, **values: Any) -> Any:
    return scene.page.post(scene.address, {"project": (to or scene.second).pk, **values})


def test_it_goes_with_where_it_came_from_and_its_scores_stay(scene: Scene) -> None:
    problems = samples.arithmetic(2)
    measured = samples.make_evaluation(
        scene.user, scene.checkpoint, samples.make_benchmark(problems), problems, samples=1
    )
    assert moved(scene, notes="moved").status_code == 302
    scene.checkpoint.refresh_from_db()
    assert (scene.checkpoint.project, scene.checkpoint.notes) == (scene.second, "moved")
    assert Upload.objects.get().project == scene.second
    measured.run.refresh_from_db()
    assert measured.run.project == first_project()
    text = samples.text_of(scene.page.get(scene.checkpoint.get_absolute_url()))
    assert "<dt>Project</dt><dd>second" in text
    entry = AuditEntry.objects.get(action="checkpoint.move")
    assert (entry.project_name, entry.details) == (str(first_project()), {"to": "second"})


def test_its_endpoint_moves_with_it(scene: Scene) -> None:
    served = endpoints.register(
        owner=scene.user, project=first_project(), name="e", base_url="http://h/v1", model="m"
    )
    scene.page.post(
        reverse("checkpoints:edit", args=[served.checkpoint_id]), {"project": scene.second.pk}
    )
    stranger = get_user_model().objects.create_user("eve", password="x")
    page = Client()
    page.force_login(stranger)
    assert page.get(served.get_absolute_url()).status_code == 404
    assert scene.page.get(served.get_absolute_url()).status_code == 200


@pytest.mark.parametrize(
    ("first", "second"),
    [(Role.OPERATOR, Role.ADMIN), (Role.ADMIN, Role.OPERATOR), (Role.ADMIN, Role.VIEWER)],
)
def test_only_an_admin_of_both_moves_it(scene: Scene, first: Role, second: Role) -> None:
    Membership.objects.filter(project=first_project()).update(role=first)
    Membership.objects.filter(project=scene.second).update(role=second)
    assert 'name="project"' not in samples.text_of(scene.page.get(scene.address))
    moved(scene, notes="said")
    scene.checkpoint.refresh_from_db()
    assert scene.checkpoint.project == first_project()
    assert scene.checkpoint.notes == "said"


@pytest.mark.parametrize("way", ["measures", "teacher", "endpoint"])
def test_not_while_a_run_would_lose_sight_of_it(scene: Scene, way: str) -> None:
    run = samples.make_run(scene.user, "busy", Run.Kind.EVALUATION, State.RUNNING)
    config = {}
    if way == "measures":
        problems = samples.arithmetic(2)
        samples.make_evaluation(
            scene.user, scene.checkpoint, samples.make_benchmark(problems), problems, samples=1,
            run=run,
        )  # fmt: skip
    elif way == "teacher":
        config = {"teacher": scene.checkpoint.pk}
    else:
        served = endpoints.register(
            owner=scene.user, project=first_project(), name="e", base_url="http://h", model="m"
        )
        config = {"endpoint": served.pk}
        Checkpoint.objects.filter(pk=scene.checkpoint.pk).delete()
        scene = Scene(
            scene.user, scene.page, scene.second, served.checkpoint,
            reverse("checkpoints:edit", args=[served.checkpoint_id]),
        )  # fmt: skip
    samples.make_stage(run, 9, "generate", "G", state=State.RUNNING, config=config)
    refused = moved(scene, notes="not saved either")
    assert refused.status_code == 400
    assert "“busy” would lose sight of it" in refused.content.decode()
    scene.checkpoint.refresh_from_db()
    assert (scene.checkpoint.project, scene.checkpoint.notes) == (first_project(), "")
    assert not AuditEntry.objects.filter(action__startswith="checkpoint.").exists()
    # Where everybody sees it, nobody loses sight of it; nor when it is over.
    Project.objects.filter(pk=scene.second.pk).update(open=True)
    assert moved(scene).status_code == 302
    Project.objects.filter(pk=scene.second.pk).update(open=False)
    Run.objects.filter(pk=run.pk).update(state=State.FINISHED)
    assert moved(scene, first_project()).status_code == 302
    assert moved(scene).status_code == 302

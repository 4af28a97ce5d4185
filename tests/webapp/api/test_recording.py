"""Whatever somebody changes by the API is in the audit log, with who it was and by which token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.db import transaction
from django.test import Client

from tests.webapp.api.bodies import operations, send
from tests.webapp.api.rows import make_world
from webapp.api import tokens
from webapp.core.models import AuditEntry
from webapp.leaderboard.models import Dispute
from webapp.projects.models import Membership, Project, Role
from webapp.runs.models import Run, Stage, State

pytestmark = pytest.mark.django_db

ANSWERS = "it answers, and changes nothing"
UNRECORDED = {
    "runs_distil_estimate": ANSWERS, "runs_evaluate_estimate": ANSWERS, "runs_recipe": ANSWERS,
    "endpoints_test": ANSWERS, "notifications_test": ANSWERS,
    "uploads_finish": "the upload's beginning is recorded, and what became of it",
}  # fmt: skip
CHANGING = [each for each in operations() if each[0] != "get" and each[2]["operationId"]]
INSTEAD: dict[str, dict[str, Any]] = {
    "members_add": {"username": "vera", "role": "viewer"},
    "disputes_make": {"claim": "correct"},
}


@pytest.mark.parametrize(
    ("method", "path", "told"), CHANGING, ids=[told["operationId"] for *_, told in CHANGING]
)
def test_every_change_is_recorded(
    method: str, path: str, told: dict[str, Any], admin: Any, django_user_model: Any,
    settings: Any, tmp_path: Path,
) -> None:  # fmt: skip
    operation = told["operationId"]
    if operation in UNRECORDED:
        return
    django_user_model.objects.create_user("vera", password="a long enough password")
    project = Project.objects.create(name="theirs")
    Membership.objects.create(project=project, user=admin, role=Role.ADMIN)
    world = make_world(admin, project, "theirs")
    world.keys["projects"] = (
        Project.objects.create(name="empty").pk if (operation == "projects_delete") else project.pk
    )
    if operation == "disputes_make":
        Dispute.objects.all().delete()
    if operation == "runs_retry":
        Stage.objects.filter(run=world.keys["open_run"]).update(state=State.FAILED)
        Run.objects.filter(pk=world.keys["open_run"]).update(state=State.FAILED)
    (tmp_path / "a").mkdir()
    settings.RETORT_IMPORT_ROOT = tmp_path
    _, secret = tokens.make(admin, name="t", scope="admin")
    client = Client(headers={"Authorization": f"Bearer {secret}"})
    before = set(AuditEntry.objects.values_list("pk", flat=True))
    with transaction.atomic():
        answer = send(client, method, path, told, world, INSTEAD.get(operation))
    assert answer.status_code < 300, answer.content
    made = AuditEntry.objects.exclude(pk__in=before)
    assert {(each.user_key, each.through) for each in made} == {
        (admin.pk, f"token {secret.removeprefix(tokens.START)[:6]}")
    }

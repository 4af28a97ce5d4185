"""Who may call what: each operation of the schema × role × own or foreign project.

An operation without a line in ``LINES`` fails, so that nobody forgets to say who may use it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import transaction
from django.test import Client

from tests.webapp.api.bodies import operations, send
from tests.webapp.api.rows import World, make_world, member
from webapp.api import tokens
from webapp.projects.models import Membership, Project, Role

pytestmark = pytest.mark.django_db

# Operation → who may.
#   everyone  whoever is signed in; nothing foreign is in the answer
#   seen      who sees the project: others 404
#   managed   the owner and the project's admins: other members 403, others 404
#   own       the person's own: everybody else 404
#   adds      operators: viewers are refused
#   uses      operators who see what they name: the body names it
#   named     who sees what the address names: to others it is as if it were not there, 422
#   project   the project's admins: other members 403, others 404
#   admins    admins of any project, each of what is theirs: others 403
#   staff     administrators of the installation: others 403
LINES = {
    "me": "everyone", "signing_key": "everyone", "leaderboard_rows": "everyone",
    "costs_list": "everyone", "workers_list": "everyone", "storage_own": "everyone",
    "benchmarks_list": "everyone", "benchmarks_one": "everyone", "benchmarks_problems": "everyone",
    "contests_list": "everyone", "prompt_sets_list": "everyone", "prompt_sets_one": "everyone",
    "prompt_sets_prompts": "everyone", "checkpoints_list": "everyone", "endpoints_list": "everyone",
    "runs_list": "everyone", "evaluations_list": "everyone", "projects_list": "everyone",
    "uploads_list": "everyone", "tokens_list": "everyone", "tokens_make": "everyone",
    "notifications_settings": "everyone", "notifications_change": "everyone",
    "notifications_test": "everyone",
    "projects_one": "seen", "checkpoints_one": "seen", "checkpoints_lineage": "seen",
    "checkpoints_card": "seen", "checkpoints_tar": "seen", "endpoints_one": "seen",
    "runs_one": "seen", "runs_log": "seen", "runs_examples": "seen", "runs_checked": "seen",
    "evaluations_one": "seen", "evaluations_completions": "seen", "disputes_list": "seen",
    "disputes_score": "seen", "disputes_export": "seen", "reports_list": "seen",
    "reports_file": "seen", "reports_at_once": "seen", "reports_ask": "seen",
    "comparison_scores": "named", "comparison_problems": "named",
    "checkpoints_edit": "managed", "checkpoints_keep": "managed", "checkpoints_delete": "managed",
    "endpoints_change": "managed", "endpoints_test": "managed", "endpoints_delete": "managed",
    "runs_cancel": "managed", "runs_retry": "managed", "runs_priority": "managed",
    "runs_keep": "managed", "runs_delete": "managed", "disputes_make": "managed",
    "disputes_withdraw": "managed",
    "uploads_one": "own", "uploads_finish": "own", "uploads_discard": "own", "tokens_revoke": "own",
    "uploads_begin": "adds", "uploads_hub": "adds", "endpoints_register": "adds",
    "runs_distil": "uses", "runs_check": "uses", "runs_evaluate": "uses", "runs_import": "adds",
    "runs_distil_estimate": "uses", "runs_evaluate_estimate": "uses", "runs_recipe": "uses",
    "chats_keep": "adds", "runs_presets": "everyone", "populations_list": "everyone",
    "checkpoints_graph": "seen", "runs_latest": "seen", "runs_graph": "seen",
    "benchmarks_add": "staff", "prompt_sets_add": "staff", "contests_add": "staff",
    "members_role": "project", "members_remove": "project", "invitations_list": "project",
    "invitations_make": "project", "invitations_revoke": "project", "audit_list": "admins",
    "projects_make": "staff", "projects_change": "staff", "projects_delete": "staff",
    "members_add": "staff", "uploads_folder": "staff", "workers_drain": "staff",
    "people_list": "staff", "people_limit": "staff", "people_active": "staff",
    "storage_disk": "staff",
}  # fmt: skip

PEOPLE = ("owner", "admin", "operator", "viewer", "stranger", "staff")
REFUSED = {403, 404}


def test_every_operation_has_a_line() -> None:
    assert {told["operationId"] for _, _, told in operations()} == set(LINES)


def test_what_changes_something_needs_more_than_reading() -> None:
    for method, path, told in operations():
        assert (method == "get") or told["x-scope"] in ("write", "admin"), path
        assert (LINES[told["operationId"]] == "staff") <= (told["x-scope"] == "admin"), path


@pytest.fixture
def scene(admin: Any) -> tuple[World, dict[str, Client]]:
    """A project with rows of its operator's, and a client of each kind of person."""
    project = Project.objects.create(name="theirs")
    elsewhere = Project.objects.create(name="elsewhere")
    people: dict[str, Any] = {
        "owner": member("olga", project, Role.OPERATOR),
        "admin": member("anna", project, Role.ADMIN),
        "operator": member("otto", project, Role.OPERATOR),
        "viewer": member("vera", project, Role.VIEWER),
        "stranger": member("sven", elsewhere, Role.ADMIN),
        "staff": admin,
    }
    assert not Membership.objects.filter(user=people["stranger"], project=project).exists()
    world = make_world(people["owner"], project, "theirs")

    def client(person: Any) -> Client:
        _, secret = tokens.make(person, name="t", scope="admin")
        return Client(headers={"Authorization": f"Bearer {secret}"})

    return world, {name: client(person) for name, person in people.items()}


def call(client: Client, method: str, path: str, told: dict[str, Any], world: World) -> Any:
    """The answer; what it changed is undone."""
    with transaction.atomic():
        answer = send(client, method, path, told, world)
        transaction.set_rollback(True)
    return answer


def expected(line: str) -> dict[str, Callable[[int], bool]]:
    """What each kind of person is answered."""

    def may(status: int) -> bool:
        return status not in REFUSED

    def is_(*statuses: int) -> Callable[[int], bool]:
        return lambda status: status in statuses

    none, no = is_(404), is_(403)
    everyone = dict.fromkeys(PEOPLE, may)
    return {
        "everyone": everyone,
        "seen": everyone | {"stranger": none},
        "managed": everyone | {"operator": no, "viewer": no, "stranger": none},
        "own": everyone | dict.fromkeys(("operator", "viewer", "stranger"), none)
        | {"admin": is_(404, 200, 204), "staff": is_(404, 200, 204)},
        "named": everyone | {"stranger": is_(422)},
        "adds": everyone | {"viewer": is_(403, 422)},
        "uses": everyone | {"viewer": is_(403, 422), "stranger": is_(422)},
        "project": everyone | dict.fromkeys(("owner", "operator", "viewer"), no)
        | {"stranger": none},
        "admins": everyone | dict.fromkeys(("owner", "operator", "viewer"), no),
        "staff": everyone | dict.fromkeys(("owner", "admin", "operator", "viewer"), no)
        | {"stranger": is_(403, 404)},
    }[line]  # fmt: skip


# What is not there for anybody yet: the row exists, its file or card does not.
_GONE = {"runs_examples", "reports_file"}


@pytest.mark.parametrize(
    ("method", "path", "told"),
    operations(),
    ids=[told["operationId"] for *_, told in operations()],
)
def test_each_role_gets_what_is_its_own(
    method: str, path: str, told: dict[str, Any], scene: Any
) -> None:
    world, clients = scene
    operation = told["operationId"]
    for who, allowed in expected(LINES[operation]).items():
        answer = call(clients[who], method, path, told, world)
        status = answer.status_code
        assert status < 500
        if operation in _GONE:
            assert status == 404
            continue
        assert allowed(status), f"{operation} as {who}: {status} {answer.content[:300]!r}"
        if who == "stranger" and LINES[operation] in ("everyone", "uses", "admins"):
            told_back = answer.content.decode()
            if LINES[operation] != "uses" and operation not in _INSTALLATIONS:
                assert "theirs" not in told_back, operation


# Benchmarks and prompt sets belong to nobody; hosts are everybody's to see.
_INSTALLATIONS = {
    "benchmarks_list", "benchmarks_one", "benchmarks_problems", "contests_list",
    "prompt_sets_list", "prompt_sets_one", "prompt_sets_prompts", "workers_list",
    "populations_list",
}  # fmt: skip

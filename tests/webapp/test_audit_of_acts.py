"""Whatever somebody changes on a page is in the audit log, with who it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.webapp.access_table import ACTS, DONE
from tests.webapp.access_world import ROLES, World, build, contents, undone
from tests.webapp.test_access import chosen, outcome
from webapp.core.models import AuditEntry

pytestmark = pytest.mark.django_db

# What changes rows and is no decision of anybody's.
PIECES = "pieces of an upload: its beginning is recorded, and what became of it"
TRIED = "a wrong password is counted; a right one is recorded (test_accounts, test_tokens)"
UNRECORDED = {
    "checkpoints:tus-files": PIECES, "checkpoints:tus-file": PIECES,
    "core:profile": TRIED, "core:password": TRIED, "tokens:index": TRIED,
}  # fmt: skip


@pytest.fixture
def world(settings: Any, tmp_path: Path) -> World:
    settings.MEDIA_ROOT = tmp_path / "files"
    return build()


def test_every_change_on_a_page_is_recorded(world: World) -> None:
    missing, seen = [], 0
    for act in ACTS:
        role = next((role for role in reversed(ROLES) if act.who[role] == DONE), None)
        if role is None or not act.changes or act.name in UNRECORDED:
            continue
        client, person = world.client(role), world.people[role]
        with undone():
            before = AuditEntry.objects.count()
            answer = act.send(client, world, **chosen(world, act, role))
            entries = AuditEntry.objects.all()[: AuditEntry.objects.count() - before]
            told = [(entry.user_key, entry.user_name) for entry in entries]
        assert outcome(answer) == DONE, act
        if not told or set(told) != {(person.pk, person.get_username())}:
            missing.append(f"{act} by {role}: {told}")
        seen += 1
    assert not missing, "\n".join(missing)
    assert seen > 30


# Signing out needs no room for an entry; a form's files are no rows that a transaction takes back.
APART = {"core:logout", "checkpoints:upload"}


def test_nothing_is_changed_that_could_not_be_recorded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entry is written in the change's own transaction: neither is there without the other."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError("no room for an entry")

    before, left, seen = contents(), [], 0
    for act in ACTS:
        role = next((role for role in reversed(ROLES) if act.who[role] == DONE), None)
        if role is None or not act.changes or act.name in UNRECORDED.keys() | APART:
            continue
        client = world.client(role)
        client.raise_request_exception = False
        with undone(before) as changed, monkeypatch.context() as patch:
            patch.setattr(AuditEntry.objects, "create", full)
            answer = act.send(client, world, **chosen(world, act, role))
        assert answer.status_code == 500, act
        if changed:
            left.append(f"{act} by {role}: {list(changed)}")
        seen += 1
    assert not left, "\n".join(left)
    assert seen > 30

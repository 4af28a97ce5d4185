"""Stored markup: through every place where somebody else's words appear, on every answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.webapp import access_world
from tests.webapp.access_table import ABSENT, ACTS, Act
from tests.webapp.access_world import ADMINISTRATOR, OWNER, World, undone
from tests.webapp.attacks import hostile
from tests.webapp.attacks.test_policy import directives, faults_of, nonce_of
from tests.webapp.test_access import body_of, chosen

pytestmark = pytest.mark.django_db

LOOKING = [act for act in ACTS if act.method == "get"]


@pytest.fixture
def world(settings: Any, tmp_path: Path) -> World:
    settings.MEDIA_ROOT = tmp_path / "files"
    return hostile.build(access_world.build())


def faults(act: Act, answer: Any) -> list[str]:
    """What an answer lets a stranger's words do."""
    body = body_of(answer).decode(errors="replace")
    policy = answer["Content-Security-Policy"]
    kind = answer.get("Content-Type", "")
    if answer.get("X-Content-Type-Options") != "nosniff":
        return ["it may be sniffed"]
    if not kind.startswith("text/html") or "attachment" in answer.get("Content-Disposition", ""):
        alone = directives(policy)
        shut = alone["default-src"] == "'none'" and "sandbox" in alone
        page = [] if not kind.startswith("text/html") else faults_of(body, "no page of ours")
        # A report has styles of its own, and a policy that lets it load and run nothing.
        page = [fault for fault in page if not fault.endswith(" style>")]
        return page + ([] if shut else [f"{kind} may act: {policy}"])
    found = faults_of(body, nonce_of(policy))
    if "zq-hole" in body and "&lt;zq-hole" not in body and "\\u003Czq-hole" not in body:
        found.append("unescaped")
    return found


def test_no_answer_lets_a_stranger_s_words_do_anything(world: World) -> None:
    """Every page, part and download, by who sees most; and every form's refusal with its echo."""
    found, shown = [], 0
    for act in LOOKING:
        for role in (OWNER, ADMINISTRATOR):
            client = world.client(role)  # signing in is not undone
            with undone():
                answer = act.send(client, world)
                found += [f"{act} by {role}: {fault}" for fault in faults(act, answer)]
                shown += b"zq-hole" in answer.content if not answer.streaming else 0
    assert not found, "\n".join(found)
    assert shown > 60, f"the words stood on {shown} answers only"


def test_no_form_hands_words_back_as_markup(world: World) -> None:
    """What a form refuses it shows again, in its fields, messages and sentences."""
    found = []
    for act in ACTS:
        if act.method != "post" or act.content_type:
            continue
        given = dict.fromkeys(act.data(world) if act.data else (), hostile.LONG)
        # What launch pages read besides.
        given |= {"yaml": f"{hostile.LONG}: [", "name": hostile.LONG, "action": "paste"}
        for role in (OWNER, ADMINISTRATOR):
            if act.who[role] == ABSENT:
                continue
            client = world.client(role)
            with undone():
                sent = getattr(client, act.method)(
                    act.address(world), given | chosen(world, act, role)
                )
                found += [f"{act} by {role}: {fault}" for fault in faults(act, sent)]
                # A message waits for the next page.
                after = client.get("/notifications/")
                found += [f"after {act} by {role}: {fault}" for fault in faults(act, after)]
    assert not found, "\n".join(found)

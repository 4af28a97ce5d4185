"""The table of who may do what: every act of every address, by role.

An act is one method of one address with what it sends. ``tests/webapp/test_access.py`` holds the
product against it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from django.test import Client
from django.urls import reverse

from tests.webapp.access_world import (
    ADMIN,
    ADMINISTRATOR,
    ANONYMOUS,
    OPERATOR,
    OWNER,
    ROLES,
    STRANGER,
    VIEWER,
    World,
)

# What becomes of a request.
DONE, LOGIN, REFUSED, ABSENT = "done", "to the sign-in page", "refused", "absent"
REJECTED = "rejected"  # as any input that cannot be used: the form says why

Rule = dict[str, str]


def rule(*, outside: str, viewer: str, operator: str, owner: str, admin: str, staff: str) -> Rule:
    """What becomes of everybody's request; strangers to the installation have to sign in."""
    return {
        ANONYMOUS: LOGIN, STRANGER: outside, VIEWER: viewer, OPERATOR: operator, OWNER: owner,
        ADMIN: admin, ADMINISTRATOR: staff,
    }  # fmt: skip


ANYBODY: Rule = dict.fromkeys(ROLES, DONE)
SIGNED_IN = dict.fromkeys(ROLES, DONE) | {ANONYMOUS: LOGIN}
# Of a project: who is no member of it finds nothing there.
SEEN = SIGNED_IN | {STRANGER: ABSENT}
# Something new: in a project in which one is an operator; viewers work nowhere.
WORKING = SIGNED_IN | {VIEWER: REFUSED}
DECIDING = rule(
    outside=ABSENT, viewer=REFUSED, operator=REFUSED, owner=DONE, admin=DONE, staff=DONE
)
# One's own, and nobody else's business.
OWN = dict.fromkeys(ROLES, ABSENT) | {ANONYMOUS: LOGIN, OWNER: DONE}
# An upload is its sender's; admins of its project may look at it and discard it.
SENDING = OWN
SENT = SENDING | {ADMIN: DONE, ADMINISTRATOR: DONE}
# What admins of a project decide.
# Of what whoever asks holds in the session; these hold none.
NOBODY: Rule = dict.fromkeys(ROLES, ABSENT)
RULING = DECIDING | {OWNER: REFUSED}
FOUNDING = RULING | {ADMIN: REFUSED}
STAFF = rule(
    outside=REFUSED, viewer=REFUSED, operator=REFUSED, owner=REFUSED, admin=REFUSED, staff=DONE
)
# Admins read what was done in their projects; the stranger is one elsewhere.
RECORDED = STAFF | {ANONYMOUS: LOGIN, STRANGER: DONE, ADMIN: DONE}


@dataclass(frozen=True)
class Act:
    """One method of one address."""

    name: str
    who: Rule
    method: str = "get"
    places: dict[str, str] = field(default_factory=dict)  # part of the address → name of a thing
    query: str = ""
    data: Callable[[World], dict[str, Any]] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = ""
    changes: bool = False  # whether it changes a row where it is done

    def __str__(self) -> str:
        return f"{self.method} {self.name}{self.query}"

    def address(self, world: World, **other: Any) -> str:
        parts = {part: world.keys.get(thing, thing) for part, thing in self.places.items()}
        return reverse(self.name, kwargs=parts | other) + self.query.format(**world.keys)

    def send(self, client: Client, world: World, address: str | None = None, **more: Any) -> Any:
        data = self.data(world) | more if self.data else more
        kwargs: dict[str, Any] = {"headers": self.headers} if self.headers else {}
        if self.content_type:
            kwargs["content_type"] = self.content_type
        if data or self.method == "post":
            kwargs["data"] = data.get("body", data)
        return getattr(client, self.method)(address or self.address(world), **kwargs)


E_ = {"pk": "evaluation"}
SAMPLE = {"pk": "evaluation", "problem": "problem", "sample": "0"}
CHECKPOINT, ENDPOINT, RUN = {"pk": "checkpoint"}, {"pk": "endpoint"}, {"pk": "running"}
PROJECT = {"pk": "project"}
TUS = {"Tus-Resumable": "1.0.0"}
PIECE = "application/offset+octet-stream"


def given(**data: Any) -> Callable[[World], dict[str, Any]]:
    """The same fields whatever the keys are."""
    return lambda world: dict(data)


ACTS: tuple[Act, ...] = (
    Act("healthz", ANYBODY), Act("readyz", ANYBODY), Act("metrics", ANYBODY),
    # --- leaderboard
    Act("leaderboard:index", SIGNED_IN), Act("leaderboard:csv", SIGNED_IN),
    Act("leaderboard:compare", SIGNED_IN, query="?e={evaluation}&e={more}"),
    Act("leaderboard:compare_csv", SEEN, query="?e={evaluation}&e={more}"),
    Act("leaderboard:compare_problems_csv", SEEN, query="?e={evaluation}&e={more}"),
    Act(
        "leaderboard:compare_problem", SEEN, places={"problem": "problem"},
        query="?e={evaluation}&e={more}",
    ),
    Act("leaderboard:evaluation", SEEN, places=E_),
    Act("leaderboard:problem", SEEN, places={"pk": "evaluation", "problem": "problem"}),
    Act("leaderboard:raw", SEEN, places=SAMPLE),
    Act("leaderboard:raw", SEEN, places=SAMPLE, query="?as=json"),
    Act("leaderboard:part", SEEN, places={**SAMPLE, "which": "thinking"}),
    Act("leaderboard:part", SEEN, places={**SAMPLE, "which": "answer"}, query="?all=yes"),
    Act("leaderboard:disputes", SEEN, places=E_),
    Act("leaderboard:disputed_score", SEEN, places=E_),
    Act("leaderboard:disputes_jsonl", SEEN, places=E_),
    Act(
        "leaderboard:dispute", DECIDING, "post", places=SAMPLE, changes=True,
        data=given(claim="wrong", reason="no"),
    ),
    Act(
        "leaderboard:withdraw", DECIDING, "post", changes=True,
        places={"pk": "evaluation", "dispute": "dispute"},
    ),
    Act("leaderboard:reports", SEEN, places=E_), Act("leaderboard:reports_live", SEEN, places=E_),
    *(Act(f"leaderboard:report_{form}", SEEN, places=E_)
      for form in ("html", "json", "csv", "parquet")),
    Act(
        "leaderboard:ask_report", SEEN, "post", places=E_, changes=True, data=given(format="zip")
    ),
    Act("leaderboard:download", SEEN, places={"pk": "evaluation", "report": "report"}),
    Act("leaderboard:signing_key", SIGNED_IN),
    Act("leaderboard:signing_key", SIGNED_IN, query="?as=pem"),
    # --- benchmarks: the installation's
    Act("benchmarks:index", SIGNED_IN), Act("benchmarks:contests", SIGNED_IN),
    Act("benchmarks:detail", SIGNED_IN, places={"pk": "benchmark"}),
    Act("benchmarks:prompt_set", SIGNED_IN, places={"pk": "prompt_set"}),
    Act("benchmarks:contests", STAFF, "post"),
    # --- checkpoints
    Act("checkpoints:index", SIGNED_IN), Act("checkpoints:detail", SEEN, places=CHECKPOINT),
    Act("checkpoints:index", SIGNED_IN, query="?archived"),
    Act("checkpoints:card", SEEN, places=CHECKPOINT),
    Act("checkpoints:tar", SEEN, places=CHECKPOINT),
    Act("checkpoints:run-lineage", SEEN, places={"pk": "finished"}),
    Act("checkpoints:edit", DECIDING, places=CHECKPOINT),
    Act(
        "checkpoints:edit", DECIDING, "post", places=CHECKPOINT, changes=True,
        data=given(notes="new words", tags="a, b"),
    ),
    Act("checkpoints:upload", WORKING), Act("checkpoints:hub", WORKING),
    Act("checkpoints:upload", WORKING, "post", data=given(name="x")),
    Act(
        "checkpoints:hub", WORKING, "post", changes=True,
        data=given(repository="owner/name", revision="main", name="from-elsewhere"),
    ),
    Act("checkpoints:folder", STAFF),
    Act("checkpoints:folder", STAFF, "post", data=given(name="x", folder="x")),
    Act(
        "checkpoints:begin", WORKING, "post", changes=True,
        data=given(name="new-one", paths=["config.json", "m.safetensors"], lengths=["2", "9"]),
    ),
    Act("checkpoints:resume", SENT, places={"pk": "upload"}),
    Act("checkpoints:upload-live", SENT, places={"pk": "upload"}),
    Act("checkpoints:finish", SENDING, "post", places={"pk": "upload"}),
    Act("checkpoints:discard", SENT, "post", places={"pk": "upload"}, changes=True),
    Act(
        "checkpoints:tus-files", SENDING, "post", places={"upload": "upload"}, changes=True,
        headers=TUS | {"Upload-Length": "3", "Upload-Metadata": "path Y29uZmlnLmpzb24="},
        content_type="text/plain",
    ),
    Act("checkpoints:tus-files", SIGNED_IN, "options", places={"upload": "upload"}),
    Act(
        "checkpoints:tus-file", SENDING, "head", places={"upload": "upload", "pk": "file"},
        headers=TUS,
    ),
    Act("checkpoints:tus-file", SIGNED_IN, "options", places={"upload": "upload", "pk": "file"}),
    Act(
        "checkpoints:tus-file", SENDING, "patch", places={"upload": "upload", "pk": "file"},
        headers=TUS | {"Upload-Offset": "0"}, content_type=PIECE, data=given(body=b"{}"),
        changes=True,
    ),
    Act(
        "checkpoints:tus-file", SENDING, "delete", places={"upload": "upload", "pk": "file"},
        headers=TUS, changes=True,
    ),
    # --- storage
    Act("housekeeping:index", SIGNED_IN), Act("housekeeping:disk", STAFF),
    Act("housekeeping:checkpoint", DECIDING, places=CHECKPOINT),
    Act("housekeeping:run", DECIDING, places={"pk": "finished"}),
    *(Act("housekeeping:checkpoint", DECIDING, "post", places=CHECKPOINT, changes=True,
          data=given(act=act)) for act in ("archive", "delete")),
    *(Act("housekeeping:run", DECIDING, "post", places={"pk": "finished"}, changes=True,
          data=given(act=act)) for act in ("archive", "delete")),
    # --- endpoints
    Act("endpoints:index", SIGNED_IN), Act("endpoints:detail", SEEN, places=ENDPOINT),
    Act("endpoints:register", WORKING),
    Act(
        "endpoints:register", WORKING, "post", changes=True,
        data=given(name="mine", base_url="http://127.0.0.1:9/v1", model="m", concurrency=4),
    ),
    Act(
        "endpoints:detail", DECIDING, "post", places=ENDPOINT, changes=True,
        data=given(concurrency=3),
    ),
    Act("endpoints:test", DECIDING, "post", places=ENDPOINT),
    Act("endpoints:delete", DECIDING, "post", places=ENDPOINT, changes=True),
    # --- notifications: one's own
    Act("notifications:settings", SIGNED_IN),
    Act(
        "notifications:settings", SIGNED_IN, "post", changes=True,
        data=given(email="", webhook_url="http://127.0.0.1:9/hook", on_failed="on"),
    ),
    Act("notifications:test", SIGNED_IN, "post", places={"channel": "webhook"}),
    # --- runs
    Act("runs:index", SIGNED_IN), Act("runs:index_live", SIGNED_IN),
    Act("runs:detail", SEEN, places=RUN), Act("runs:live", SEEN, places=RUN),
    Act("runs:detail", SEEN, places={"pk": "failed"}),
    Act("runs:latest", SEEN, places=RUN), Act("runs:checked", SEEN, places={"pk": "check"}),
    Act("runs:examples", SEEN, places={**RUN, "which": "kept"}),
    Act("runs:examples", SEEN, places={**RUN, "which": "dropped"}),
    Act("runs:distil", WORKING), Act("runs:evaluate", WORKING), Act("runs:import", WORKING),
    Act("runs:distil", WORKING | {STRANGER: ABSENT}, query="?clone={running}"),
    Act("runs:evaluate", WORKING | {STRANGER: ABSENT}, query="?clone={finished}"),
    *(Act(name, WORKING, "post", data=given(action="launch")) for name in (
        "runs:distil", "runs:distil_recipe", "runs:distil_estimate", "runs:distil_check",
        "runs:evaluate_plan", "runs:import")),
    Act(
        "runs:evaluate", WORKING | {STRANGER: REJECTED}, "post", changes=True,
        data=lambda world: {
            "checkpoints": [world.keys["checkpoint"]], "benchmarks": [world.keys["benchmark"]],
            "protocol": "quick", "engine": "transformers", "devices": 1, "priority": 0,
            "project": world.keys["project"],
        },
    ),
    Act("runs:cancel", DECIDING, "post", places=RUN, changes=True),
    Act("runs:retry", DECIDING, "post", places={"pk": "failed"}, changes=True),
    Act(
        "runs:priority", DECIDING, "post", places=RUN, changes=True, data=given(priority=-3)
    ),
    Act("runs:turns", SIGNED_IN),
    Act("runs:limit", STAFF, "post", places={"pk": "person"}, changes=True, data=given(limit=3)),
    Act("runs:workers", SIGNED_IN), Act("runs:workers_live", SIGNED_IN),
    Act("runs:drain", STAFF, "post", places={"pk": "worker"}, changes=True,
        data=given(draining="1")),
    Act("costs:index", SIGNED_IN),
    *(Act("costs:index", SIGNED_IN, query=f"?by={by}&csv") for by in (
        "run", "person", "student", "kind")),
    # --- accounts
    Act("projects:index", SIGNED_IN),
    Act("projects:index", STAFF, "post", data=given(name="new"), changes=True),
    Act("projects:detail", SEEN, places=PROJECT),
    Act("projects:change", FOUNDING, "post", places=PROJECT, data=given(name="new"), changes=True),
    Act("projects:delete", FOUNDING, "post", places=PROJECT),  # it is not empty
    Act("projects:invite", RULING, "post", places=PROJECT, changes=True,
        data=given(email="new@example.org", role="viewer")),
    Act("projects:revoke-invitation", RULING, "post", changes=True,
        places={**PROJECT, "invitation": "invitation"}),
    Act("projects:add-member", FOUNDING, "post", places=PROJECT, changes=True,
        data=given(username="newcomer", role="viewer")),
    Act("projects:role", RULING, "post", places={**PROJECT, "user": "member"}, changes=True,
        data=given(role="admin")),
    Act("projects:remove-member", RULING | {OPERATOR: DONE}, "post", changes=True,
        places={**PROJECT, "user": "member"}),  # everybody may leave
    Act("projects:invitation", NOBODY), Act("projects:invitation", NOBODY, "post"),
    Act("projects:invitation-link", ANYBODY, places={"token": "no-such-token"}),
    Act("tokens:index", SIGNED_IN),
    # A wrong password is counted.
    Act("tokens:index", SIGNED_IN, "post", changes=True,
        data=given(name="t", scope="read", days=3, password="no")),
    Act("tokens:revoke", OWN, "post", places={"pk": "token"}, changes=True),
    Act("api:docs", SIGNED_IN), Act("api:openapi", ANYBODY),
    Act("core:profile", SIGNED_IN), Act("core:password", SIGNED_IN),
    # A wrong password is counted.
    Act("core:profile", SIGNED_IN, "post", data=given(email="", password="no"), changes=True),
    Act("core:password", SIGNED_IN, "post", data=given(old_password="no"), changes=True),
    Act("core:end-session", NOBODY | {ANONYMOUS: LOGIN}, "post", places={"name": "no-such"}),
    Act("core:end-other-sessions", SIGNED_IN, "post", changes=True),
    Act("core:people", STAFF),
    *(Act(f"core:{name}", STAFF, "post", places={"pk": "person"}, changes=True)
      for name in ("deactivate", "activate", "make-reset-link")),
    Act("core:audit", RECORDED), Act("core:audit-csv", RECORDED),
    Act("core:reset", ANYBODY), Act("core:reset", ANYBODY, "post", data=given(email="a@b.org")),
    *(Act("core:reset-confirm", ANYBODY, method, places={"uidb64": "MQ", "token": "no-such"})
      for method in ("get", "post")),
    Act("core:login", ANYBODY), Act("core:logout", SIGNED_IN, "post", changes=True),
)  # fmt: skip

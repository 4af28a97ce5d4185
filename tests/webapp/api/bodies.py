"""What every operation of the API is sent, for tests that walk over all of them."""

from __future__ import annotations

import json
from typing import Any

from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from tests.evaluator import programs
from tests.webapp.api.rows import World
from webapp.api.docs_views import _schema


def operations() -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method, path, told)
        for path, methods in _schema()["paths"].items()
        for method, told in methods.items()
    ]


def body_of(operation: str, world: World) -> Any:
    """What passes as a body; names are those of ``world``."""
    keys, name = world.keys, world.project.name
    recipe = (
        f"name: r\nteacher: {name}-model\nbase: {name}-other\nstudent: {name}-s\n"
        f"prompts: {{set: {name}-prompts}}\n"
    )
    chosen = {"checkpoints": [f"{name}-model"], "benchmarks": ["arithmetic"]}
    files = [("config.json", 1), ("a.safetensors", 9)]
    return {
        "tokens_make": {"name": "t"},
        "notifications_change": {},
        "checkpoints_edit": {"notes": "n"},
        "endpoints_change": {"concurrency": 2},
        "runs_priority": {"priority": 0},
        "disputes_make": {"problem": keys["problem"], "sample": 0, "claim": "wrong", "reason": "r"},
        "reports_ask": {"form": "zip"},
        "uploads_begin": {
            "name": "new",
            "files": [{"path": path, "length_bytes": length} for path, length in files],
        },
        "uploads_hub": {"repository": "a/b"},
        "uploads_folder": {"folder": "a", "name": "new"},
        "endpoints_register": {"name": "new", "base_url": "http://127.0.0.1:9/v1", "model": "m"},
        "runs_distil": {"yaml": recipe}, "runs_check": {"yaml": recipe},
        "runs_recipe": {"yaml": recipe}, "runs_distil_estimate": {"yaml": recipe},
        "runs_evaluate": chosen, "runs_evaluate_estimate": chosen,
        "members_role": {"role": "viewer"}, "members_add": {"username": "x", "role": "viewer"},
        "projects_make": {"name": "p"}, "projects_change": {"name": "p"},
        "workers_drain": {"draining": True}, "people_limit": {"limit": 1},
        "people_active": {"active": True},
        "invitations_make": {"email": "a@example.org", "role": "viewer"},
    }.get(operation)  # fmt: skip


def form_of(operation: str) -> dict[str, Any] | None:
    """What passes as a form with a file; None for what takes JSON."""

    def file(name: str, *rows: Any) -> SimpleUploadedFile:
        return SimpleUploadedFile(name, "".join(f"{json.dumps(row)}\n" for row in rows).encode())

    completion = {"problem_id": "sum-000", "sample": 0, "completion": "1"}
    problem = {"id": "a", "problem": "1 + 1?", "answer": "2"}
    forms: dict[str, dict[str, Any]] = {
        "runs_import": {
            "checkpoint": "c", "benchmark": "arithmetic", "file": file("c.jsonl", completion),
        },
        "chats_keep": {"file": file("chats.jsonl", {"prompt": "a", "response": "b"})},
        "benchmarks_add": {"name": "custom", "file": file("p.jsonl", problem)},
        "prompt_sets_add": {"name": "new", "file": file("p.jsonl", problem)},
        "contests_add": {"kind": "contest", "file": file("b.json", programs.bundle("9001"))},
    }  # fmt: skip
    return forms.get(operation)


def known_key(path: str, name: str, keys: dict[str, Any]) -> Any:
    """The key of a row that is there, or a word that the path takes."""
    if name == "pk":
        return keys[path.split("/")[3]]
    words = {"act": "archive", "which": "kept", "form": "json", "channel": "email"}
    return words[name] if name in words else keys[name]


def send(
    client: Client,
    method: str,
    path: str,
    told: dict[str, Any],
    world: World,
    more: dict[str, Any] | None = None,
) -> Any:
    """The answer of an operation on what is in ``world``; ``more`` joins its body."""
    operation = told["operationId"]
    for parameter in told["parameters"]:
        if parameter["in"] == "path":
            key = known_key(path, parameter["name"], world.keys)
            path = path.replace(f"{{{parameter['name']}}}", str(key))
    if operation.startswith("comparison"):
        path += f"?e={world.keys['evaluations']}&e={world.keys['other']}"
    if operation in ("runs_cancel", "runs_priority", "runs_retry"):
        path = path.replace(str(world.keys["runs"]), str(world.keys["open_run"]))
    named: dict[str, Any] = {}
    if (form := form_of(operation)) is not None:
        named["data"] = form | (more or {})
    elif method != "get":
        body = body_of(operation, world)
        body = body if more is None else (body or {}) | more
        named = {"data": json.dumps(body), "content_type": "application/json"}
    return getattr(client, method)(path, **named)

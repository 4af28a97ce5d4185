"""The API, put together: a router for each resource."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from django.http import HttpRequest

from webapp.api.auth import READ, Throttle
from webapp.api.errors import answer_refusals
from webapp.api.framework import NinjaAPI, Operation, Parser
from webapp.api.openapi import DESCRIPTION
from webapp.core import bodies

# (Resource, module of webapp.api.routes that answers for it, name of its router there).
RESOURCES = (
    ("me", "me", "router"),
    ("projects", "projects", "router"),
    # Before the routers whose addresses would take theirs for acts.
    ("checkpoints", "lineage", "of_checkpoints"),
    ("runs", "lineage", "of_runs"),
    ("checkpoints", "checkpoints", "router"),
    ("uploads", "uploads", "router"),
    ("endpoints", "endpoints", "router"),
    ("benchmarks", "benchmarks", "router"),
    ("prompt-sets", "benchmarks", "prompt_sets"),
    ("chats", "estimating", "chats_router"),
    ("runs", "estimating", "router"),
    ("runs", "launching", "router"),
    ("runs", "runs", "router"),
    ("evaluations", "evaluations", "router"),
    ("evaluations", "reports", "router"),
    ("signing-key", "reports", "key_router"),
    ("comparison", "comparing", "comparison"),
    ("leaderboard", "comparing", "leaderboard"),
    ("costs", "costs", "router"),
    ("workers", "workers", "router"),
    ("people", "workers", "people"),
    ("audit", "auditing", "router"),
    ("storage", "storage", "router"),
    ("notifications", "notifications", "router"),
    ("tokens", "tokens", "router"),
)


class BodyParser(Parser):
    """Reads bodies as JSON of bounded depth."""

    def parse_body(self, request: HttpRequest) -> Any:
        """The body's value. Raises UserError and ValueError, which the framework wraps."""
        return bodies.read_json(request.body)


class Api(NinjaAPI):
    """An API whose operations are called as their functions are: ``runs_cancel``."""

    def get_openapi_operation_id(self, operation: Operation) -> str:
        """The function's name, which has to be unique."""
        return operation.view_func.__name__


def build() -> Api:
    """The API with all its routers."""
    api = Api(
        title="Retort", version="1", description=DESCRIPTION, auth=READ, docs_url=None,
        openapi_url=None, throttle=[Throttle()], urls_namespace="api-v1",
        parser=BodyParser(),
    )  # fmt: skip
    answer_refusals(api)
    for resource, module, name in RESOURCES:
        routes = import_module(f"webapp.api.routes.{module}")
        api.add_router(f"/{resource}", getattr(routes, name))
    return api


api = build()

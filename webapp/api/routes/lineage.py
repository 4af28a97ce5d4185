"""Where checkpoints and runs' results come from, and what came of them."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from pydantic import Field

from webapp.api.framework import Router, Schema
from webapp.checkpoints import ancestry
from webapp.checkpoints.ancestry import Graph
from webapp.checkpoints.lineage import lineage_of
from webapp.checkpoints.models import Checkpoint
from webapp.core.users import signed_in
from webapp.projects.access import seen_by, seen_projects
from webapp.runs.models import Run

of_checkpoints = Router(tags=["checkpoints"])
of_runs = Router(tags=["runs"])


class LinkOut(Schema):
    """A step of a student's lineage."""

    role: str
    name: str
    content_hash: str | None
    facts: dict[str, str]


class NodeOut(Schema):
    """Something in a lineage."""

    key: str
    role: str = Field(description="prompts, traces, corpus, teacher, base, student, score, …")
    name: str
    note: str
    href: str = Field(description="Its page; blank: none (any more).")
    missing: bool = Field(description="It was deleted, or lies where one does not see it.")
    here: bool = Field(description="It is what was asked about.")


class EdgeOut(Schema):
    """From what was used to what was made of it, by keys of nodes."""

    source: str
    target: str


class GraphOut(Schema):
    """A lineage."""

    nodes: list[NodeOut]
    edges: list[EdgeOut]


def _out(graph: Graph) -> dict[str, Any]:
    return {
        "nodes": list(graph.nodes.values()),
        "edges": [{"source": source, "target": target} for source, target in graph.edges],
    }


@of_checkpoints.get("/{int:pk}/lineage", response=list[LinkOut])
def checkpoints_lineage(request: HttpRequest, pk: int) -> list[dict[str, Any]]:
    """From a student back to its prompts; empty for what no distillation here made."""
    person = signed_in(request)
    row = get_object_or_404(seen_by(person, Checkpoint.objects.all()), pk=pk)
    return [
        {
            "role": link.role, "name": link.name, "content_hash": link.content_hash,
            "facts": {str(key): str(value) for key, value in link.facts.items()},
        }
        for link in lineage_of(row, seen_projects(person))
    ]  # fmt: skip


@of_checkpoints.get("/{int:pk}/graph", response=GraphOut)
def checkpoints_graph(request: HttpRequest, pk: int) -> dict[str, Any]:
    """A checkpoint's ancestors, its scores and its students."""
    person = signed_in(request)
    row = get_object_or_404(seen_by(person, Checkpoint.objects.all()), pk=pk)
    return _out(ancestry.graph_of_checkpoint(row, seen_projects(person)))


@of_runs.get("/{int:pk}/graph", response=GraphOut)
def runs_graph(request: HttpRequest, pk: int) -> dict[str, Any]:
    """What a run used, and what it made."""
    person = signed_in(request)
    row = get_object_or_404(seen_by(person, Run.objects.all()), pk=pk)
    return _out(ancestry.graph_of_run(row, seen_projects(person)))

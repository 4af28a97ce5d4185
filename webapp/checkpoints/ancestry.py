"""Where a checkpoint or a run's results come from and what came of them, as a graph of rows.

prompts → traces → corpus → student → scores → report; a checkpoint's parents' parents too, and two
parents of a merge. What was deleted stands as a node that says so.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Q
from django.urls import reverse
from pydantic import ValidationError

from distiller.recipe import Recipe
from evaluator.errors import StoreError
from webapp.benchmarks.models import PromptSet
from webapp.checkpoints.models import Checkpoint, Upload
from webapp.core import store
from webapp.core.text import storable
from webapp.projects.access import ELSEWHERE
from webapp.runs.models import Evaluation, Run, Stage

MOST_NODES = 80
FEW = 6  # scores, and students, of one checkpoint that are drawn
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NOTE_BYTES = 1_000_000  # merge.json comes with the checkpoint: anybody's


@dataclass(frozen=True, slots=True)
class Node:
    """Something in the lineage. ``href`` is blank where there is no page of it (any more)."""

    key: str
    role: str
    name: str
    href: str = ""
    note: str = ""
    missing: bool = False
    here: bool = False  # whose page this is


@dataclass(slots=True)
class Graph:
    """Nodes by key, and edges from what was used to what was made.

    Of what lies in no project of ``seen``, a node says so and no more, and nothing behind it is
    followed.
    """

    seen: frozenset[int] = frozenset()
    nodes: dict[str, Node] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)

    def add(self, node: Node) -> str:
        """The node's key; a node that is there stays."""
        self.nodes.setdefault(node.key, node)
        return node.key

    def link(self, source: str | None, target: str) -> None:
        """Draw an edge, once; None draws nothing."""
        edge = (source or "", target)
        if source is not None and source != target and edge not in self.edges:
            self.edges.append(edge)

    @property
    def full(self) -> bool:
        """Whether no more ancestors are followed."""
        return len(self.nodes) >= MOST_NODES


def graph_of_checkpoint(checkpoint: Checkpoint, seen: frozenset[int]) -> Graph:
    """A checkpoint's ancestors, its scores and its students, to who sees the projects ``seen``."""
    graph = Graph(seen)
    key = _checkpoint(graph, checkpoint, here=True)
    _scores(graph, key, checkpoint)
    taught = Stage.objects.filter(config__teacher=checkpoint.pk, kind="generate").values("run")
    students = Checkpoint.objects.filter(Q(parent=checkpoint) | Q(produced_by__in=taught))
    children = list(students.exclude(pk=checkpoint.pk).order_by("-pk")[: FEW + 1])
    for child in children[:FEW]:
        graph.link(key, graph.add(_checkpoint_node(graph, child, "student")))
    if len(children) > FEW:
        graph.link(key, graph.add(Node(f"{key}-more", "students", "and more students")))
    return graph


def graph_of_run(run: Run, seen: frozenset[int]) -> Graph:
    """What a run used, and what it made, to who sees the projects ``seen``."""
    graph = Graph(seen)
    products = list(run.products.all())
    for product in products:
        if product.project_id in seen:
            _scores(graph, _checkpoint(graph, product), product)
        else:
            graph.add(_checkpoint_node(graph, product, "student"))
    if run.kind == Run.Kind.DISTILLATION and not products:
        student = graph.add(
            Node(f"run-{run.pk}-student", "student", "not there", note="the run made none (yet)")
        )
        _distillation(graph, run, student)
    for evaluation in run.evaluations.select_related("checkpoint", "benchmark")[: 2 * FEW]:
        if evaluation.checkpoint is not None and evaluation.checkpoint not in products:
            _score(graph, _checkpoint(graph, evaluation.checkpoint), evaluation)
    return graph


def _checkpoint(graph: Graph, checkpoint: Checkpoint, *, here: bool = False) -> str:
    """The checkpoint with everything before it."""
    key = f"checkpoint-{checkpoint.pk}"
    if key in graph.nodes:
        return key
    run = checkpoint.produced_by
    role = "checkpoint" if run is None else "student"
    graph.add(_checkpoint_node(graph, checkpoint, role, here=here))
    if checkpoint.project_id not in graph.seen:
        return key
    if graph.full:
        graph.link(graph.add(Node(f"{key}-before", "more", "earlier ancestors are not drawn")), key)
    elif run is not None and run.kind == Run.Kind.DISTILLATION:
        _distillation(graph, run, key)
    else:
        _other_origin(graph, checkpoint, key)
    return key


def _checkpoint_node(
    graph: Graph, checkpoint: Checkpoint, role: str, *, here: bool = False
) -> Node:
    if checkpoint.project_id not in graph.seen:
        return Node(f"checkpoint-{checkpoint.pk}", role, ELSEWHERE, missing=True)
    return Node(
        f"checkpoint-{checkpoint.pk}",
        role,
        checkpoint.name,
        checkpoint.get_absolute_url(),
        note=checkpoint.content_hash[:12],
        here=here,
    )


def _distillation(graph: Graph, run: Run, student: str) -> None:
    """Prompts and teacher → traces → corpus → student ← base."""
    if run.project_id not in graph.seen:
        hidden = Node(f"run-{run.pk}", "distillation", ELSEWHERE, missing=True)
        graph.link(graph.add(hidden), student)
        return
    try:
        recipe: Recipe | None = Recipe.model_validate(run.config)
    except ValidationError:
        recipe = None  # of another version of the product; the rows still say what was used
    stages = {stage.kind: stage for stage in Stage.objects.filter(run=run).order_by("-position")}
    config: dict[str, Any] = stages["generate"].config if "generate" in stages else {}
    place = run.get_absolute_url()
    corpus = graph.add(Node(f"run-{run.pk}-corpus", "corpus", _kept(stages.get("filter")), place))
    drawn = stages.get("generate")
    count = f"{drawn.done:,} traces" if drawn is not None and drawn.done else "traces"
    traces = graph.add(Node(f"run-{run.pk}-traces", "traces", count, place, note=run.name))
    graph.link(traces, corpus)
    graph.link(corpus, student)
    teacher = _named(
        graph, "teacher", config.get("teacher"), None if recipe is None else recipe.teacher
    )
    graph.link(teacher, traces)
    graph.link(_prompts(graph, config.get("prompt_set"), recipe), traces)
    graph.link(
        _named(graph, "base", config.get("base"), None if recipe is None else recipe.base), student
    )


def _kept(filtered: Stage | None) -> str:
    steps = (filtered.result.get("funnel") or {}).get("steps") if filtered is not None else None
    return f"{steps[-1]['kept']:,} examples" if steps else "not known yet"


def _named(graph: Graph, role: str, key: int | None, name: str | None) -> str:
    """A checkpoint that the recipe names, or that it is there no more."""
    found = Checkpoint.objects.select_related("produced_by").filter(pk=key or 0).first()
    if found is not None:
        return _checkpoint(graph, found)
    label = name or "not known"
    return graph.add(Node(f"{role}-{label}", role, label, note="deleted here", missing=True))


def _prompts(graph: Graph, key: int | None, recipe: Recipe | None) -> str:
    found = PromptSet.objects.filter(pk=key or 0).first()
    if found is None:
        label = "not known" if recipe is None else recipe.prompts.set
        return graph.add(
            Node(f"prompts-{label}", "prompts", label, note="deleted here", missing=True)
        )
    return graph.add(
        Node(f"prompts-{found.pk}", "prompts", found.name,
             reverse("benchmarks:prompt_set", args=[found.pk]),
             note=f"{found.prompt_count:,} prompts")
    )  # fmt: skip


def _other_origin(graph: Graph, checkpoint: Checkpoint, key: str) -> None:
    """Parents of a merge, the parent that a row names, or where it was fetched from."""
    parents = _merged_from(checkpoint)
    for name, digest in parents:
        # Among what is seen: the file is anybody's, and must find out no hash of other projects.
        known = Checkpoint.objects.filter(content_hash=digest, project__in=graph.seen)
        found = known.select_related("produced_by").first()
        if found is not None:
            graph.link(_checkpoint(graph, found), key)
            continue
        lost = Node(f"lost-{digest}", "parent", name, note="not here", missing=True)
        graph.link(graph.add(lost), key)
    if parents:
        return
    if checkpoint.parent is not None:
        graph.link(_checkpoint(graph, checkpoint.parent), key)
        return
    upload = checkpoint.uploads.order_by("created_at").first()
    if upload is not None and upload.source != Upload.Source.BROWSER:
        source = Node(f"upload-{upload.pk}", upload.get_source_display(), upload.origin,
                      note=upload.revision[:12])  # fmt: skip
        graph.link(graph.add(source), key)


def _merged_from(checkpoint: Checkpoint) -> list[tuple[str, str]]:
    """(name, content hash) of a merge's parents, as the file in its folder says."""
    if not checkpoint.has_files:
        return []
    try:
        path = store.fetch(f"{checkpoint.path}/merge.json")
        if path.stat().st_size > _NOTE_BYTES:
            return []
        told = json.loads(path.read_bytes())["parents"]
        found = [(str(each["name"])[:200], str(each["content_hash"])) for each in told[:FEW]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError, StoreError):
        return []  # no merge, or a file that only calls itself so
    return [(storable(name), digest) for name, digest in found if _DIGEST.fullmatch(digest)]


def _scores(graph: Graph, key: str, checkpoint: Checkpoint) -> None:
    seen = checkpoint.evaluations.filter(run__project__in=graph.seen)
    rows = seen.select_related("benchmark").defer("metrics", "protocol")
    found = list(rows.order_by("-pk")[: FEW + 1])
    for evaluation in found[:FEW]:
        _score(graph, key, evaluation)
    if len(found) > FEW:
        more = Node(f"{key}-scores", "scores", "and more scores",
                    f"{checkpoint.get_absolute_url()}#evaluations")  # fmt: skip
        graph.link(key, graph.add(more))


def _score(graph: Graph, key: str, evaluation: Evaluation) -> None:
    value = evaluation.pass_at_1
    note = "no score yet" if value is None else f"pass@1 {100 * value:.1f} %"
    score = graph.add(
        Node(f"evaluation-{evaluation.pk}", "score", evaluation.benchmark.title,
             evaluation.get_absolute_url(), note=note)
    )  # fmt: skip
    graph.link(key, score)
    if value is not None:
        report = Node(f"report-{evaluation.pk}", "report", "Report",
                      reverse("leaderboard:reports", args=[evaluation.pk]))  # fmt: skip
        graph.link(score, graph.add(report))

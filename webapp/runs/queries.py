"""What the run pages show, read in a bounded number of queries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from urllib.parse import urlencode

from django.db.models import Exists, OuterRef, Prefetch, QuerySet, Subquery
from django.utils import timezone

from webapp.core.models import User
from webapp.core.text import storable
from webapp.projects.access import seen_by
from webapp.runs.models import FINAL_STATES, Evaluation, Run, Stage, State, TrainingPoint

# A loss curve needs no more points than a screen has columns.
CURVE_POINTS = 600
LAST_LINES = 20
_COMPARED = 8  # what the page takes


@dataclass(frozen=True, slots=True)
class StageView:
    """A stage with what can be said of its pace."""

    stage: Stage

    @property
    def fraction(self) -> float | None:
        """Share done, None while the total is unknown."""
        if self.stage.state == State.FINISHED:
            return 1.0
        if not self.stage.total:
            return None
        return min(self.stage.done / self.stage.total, 1.0)

    @property
    def is_starting(self) -> bool:
        """Whether it runs but has nothing done yet: a model is being loaded."""
        return self.stage.state == State.RUNNING and not self.stage.done

    @property
    def last_lines(self) -> str:
        """The end of its log, for a message."""
        return "\n".join(self.stage.log_tail.splitlines()[-LAST_LINES:])

    @property
    def seconds(self) -> float | None:
        """How long its present attempt took, or has been running."""
        return _seconds(self.stage.started_at, self.stage.finished_at)

    @property
    def eta_seconds(self) -> float | None:
        """Time left at the mean pace of this attempt; None before it has done anything."""
        stage, seconds = self.stage, self.seconds
        gained = stage.done - stage.done_before
        if stage.state != State.RUNNING or gained <= 0 or not stage.total or seconds is None:
            return None
        return seconds * max(stage.total - stage.done, 0) / gained


@dataclass(frozen=True, slots=True)
class RunView:
    """A run with its stages in order."""

    run: Run
    stages: list[StageView]

    @property
    def is_final(self) -> bool:
        """Nothing will change any more unless somebody retries."""
        return self.run.state in FINAL_STATES

    @property
    def current(self) -> StageView | None:
        """The stage that is running, failed or next; None when all are finished."""
        for state in (State.RUNNING, State.FAILED, State.QUEUED, State.WAITING):
            for view in self.stages:
                if view.stage.state == state:
                    return view
        return None

    @property
    def finished_stages(self) -> int:
        """How many stages are finished."""
        return sum(view.stage.state == State.FINISHED for view in self.stages)

    @property
    def ordinal(self) -> int:
        """The current stage's place, counted from 1."""
        current = self.current
        return len(self.stages) if current is None else self.stages.index(current) + 1

    @property
    def fraction(self) -> float:
        """Share of the run done; every stage counts the same."""
        if not self.stages:
            return 0.0
        return sum(view.fraction or 0.0 for view in self.stages) / len(self.stages)

    @property
    def seconds(self) -> float | None:
        """How long the run took, or has been running."""
        return _seconds(self.run.started_at, self.run.finished_at)

    @property
    def failed(self) -> StageView | None:
        """The stage that failed, if one did."""
        return next((each for each in self.stages if each.stage.state == State.FAILED), None)

    @property
    def logs(self) -> list[StageView]:
        """The stages whose last lines are known, the present one first."""
        return sorted(
            (each for each in self.stages if each.stage.log_tail),
            key=lambda each: (each.stage.state != State.RUNNING, -each.stage.position),
        )

    @property
    def error(self) -> str:
        """Why the run failed: its own sentence or its failed stage's."""
        if self.run.error:
            return self.run.error
        return next((view.stage.error for view in self.stages if view.stage.error), "")


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    if start is None:
        return None
    return max(((end or timezone.now()) - start).total_seconds(), 0.0)


def _with_stages() -> QuerySet[Run]:
    stages = Stage.objects.order_by("position").defer("config", "result", "log_tail")
    return Run.objects.select_related("owner", "project").prefetch_related(
        Prefetch("stages", queryset=stages)
    )


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs a list shows; a blank field leaves all through."""

    state: str = ""
    kind: str = ""
    owner: str = ""
    project: str = ""
    name: str = ""
    archived: bool = False

    @classmethod
    def of(cls, query: Mapping[str, Any]) -> Self:
        """Read an address's query; what is no choice is blank."""
        state, kind = str(query.get("state", "")), str(query.get("kind", ""))
        return cls(
            state=state if state in State.values else "",
            kind=kind if kind in Run.Kind.values else "",
            owner=storable(str(query.get("owner", "")))[:150],
            project=storable(str(query.get("project", "")))[:100],
            name=storable(str(query.get("name", "")))[:200],
            archived="archived" in query,
        )

    @property
    def is_blank(self) -> bool:
        """Whether it leaves all through."""
        return self == RunFilter()


def runs(wanted: RunFilter, user: User) -> QuerySet[Run]:
    """The wanted of the runs that the person sees, newest first, with their stages."""
    query = seen_by(user, _with_stages()).defer("config").order_by("-created_at")
    query = query.filter(archived__isnull=not wanted.archived)
    if wanted.state:
        query = query.filter(state=wanted.state)
    if wanted.kind:
        query = query.filter(kind=wanted.kind)
    if wanted.owner:
        query = query.filter(owner__username=wanted.owner)
    if wanted.project:
        query = query.filter(project__name=wanted.project)
    if wanted.name:
        query = query.filter(name__icontains=wanted.name)
    return query


def run_owners(user: User) -> list[str]:
    """Who has launched a run that the person sees."""
    theirs = seen_by(user, Run.objects.filter(owner=OuterRef("pk")).order_by())
    owners = User.objects.filter(Exists(theirs)).order_by("username")
    return list(owners.values_list("username", flat=True))


def view_of(run: Run) -> RunView:
    """Wrap a run whose stages are prefetched."""
    return RunView(run, [StageView(stage) for stage in run.stages.all()])


def run_view(run_id: int, user: User) -> RunView:
    """Return one run with its whole stages.

    Raises Run.DoesNotExist, also where the person may not see it.
    """
    run = (
        seen_by(user, Run.objects.select_related("owner", "project"))
        .prefetch_related(Prefetch("stages", queryset=Stage.objects.order_by("position")))
        .get(pk=run_id)
    )
    return view_of(run)


def with_open_stage(evaluations: QuerySet[Evaluation]) -> QuerySet[Evaluation]:
    """Add ``open_stage_state``: the state of the first stage that is not finished, or None.

    A run that is running has evaluations that wait; their own stages know it.
    """
    unfinished = Stage.objects.filter(evaluation=OuterRef("pk")).exclude(state=State.FINISHED)
    first = unfinished.order_by("position").values("state")[:1]
    return evaluations.annotate(open_stage_state=Subquery(first))


def run_evaluations(run: Run) -> list[Evaluation]:
    """The run's evaluations: per benchmark, the teacher first and the base last."""
    order = {"teacher": 0, "student": 1, "base": 2}
    found = with_open_stage(
        run.evaluations.select_related("checkpoint", "benchmark", "run").defer(
            "protocol", "rendered_prompt", "run__config"
        )
    )
    return sorted(found, key=lambda e: (e.benchmark.name, order.get(e.role, 3), e.pk))


def comparison(evaluations: list[Evaluation]) -> str:
    """The query of the page that compares a run's measured models on its first benchmark, or ""."""
    graded = [each for each in evaluations if each.metrics]
    alike = [each for each in graded if each.benchmark_id == graded[0].benchmark_id][:_COMPARED]
    return urlencode([("e", each.pk) for each in alike]) if len(alike) > 1 else ""


def loss_curve(view: RunView) -> list[tuple[int, dict[str, Any]]]:
    """(step, values) of the train stage, thinned evenly to at most ``CURVE_POINTS``."""
    stage_ids = [s.stage.pk for s in view.stages if s.stage.kind == "train"]
    if not stage_ids:
        return []
    points = list(
        TrainingPoint.objects.filter(stage_id__in=stage_ids)
        .order_by("step")
        .values_list("step", "values")
    )
    if len(points) <= CURVE_POINTS:
        return points
    stride = len(points) / (CURVE_POINTS - 1)
    chosen = {round(i * stride) for i in range(CURVE_POINTS - 1)} | {len(points) - 1}
    return [points[i] for i in sorted(chosen) if i < len(points)]


def filter_stage(view: RunView) -> Stage | None:
    """The run's finished filter stage, whose result holds the funnel and the corpus."""
    for stage_view in view.stages:
        stage = stage_view.stage
        if stage.kind == "filter" and stage.state == State.FINISHED and stage.result:
            return stage
    return None


def writing_stage(view: RunView) -> tuple[Stage, Mapping[str, Any]] | None:
    """The stage in which a model is writing, with the rule for its thinking; None: none is."""
    for each in view.stages:
        stage = each.stage
        if stage.state != State.RUNNING:
            continue
        if stage.kind == "generate":
            return stage, view.run.config["thinking"]
        if stage.kind == "evaluate" and stage.evaluation_id is not None:
            evaluation = Evaluation.objects.only("protocol").get(pk=stage.evaluation_id)
            return stage, evaluation.protocol["thinking"]
    return None


def preflight_stage(view: RunView) -> Stage | None:
    """The run's preflight stage, where it has one that is over."""
    for each in view.stages:
        if each.stage.kind == "preflight" and each.stage.state in FINAL_STATES:
            return each.stage
    return None


@dataclass(frozen=True, slots=True)
class FunnelStep:
    """What one step left over: ``kept`` go on, ``dropped`` ended here, ``whole`` were drawn."""

    name: str
    kept: int
    dropped: int
    whole: int
    reasons: list[tuple[str, int]]


def funnel(stage: Stage) -> list[FunnelStep]:
    """The finished filter stage's funnel, from all traces down to the corpus."""
    steps = stage.result["funnel"]["steps"]
    whole = steps[0]["kept"] + steps[0]["dropped"]
    return [
        FunnelStep(
            name=_words(step["step"]),
            kept=step["kept"],
            dropped=step["dropped"],
            whole=whole,
            reasons=[(_words(reason), count) for reason, count in step["reasons"].items()],
        )
        for step in steps
    ]


def _words(code: str) -> str:
    return code.replace("_", " ")

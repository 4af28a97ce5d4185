"""Every score of the installation as columns of numbers, kept in memory by each web process.

A board is made of all scores that a person sees: to read them anew for every page costs the
database and Python more than all the rest of it. What is kept is good until a statement changes
something that it holds; such a statement leaves a row in the table of changes (``changes.sql``),
in its own transaction, so one cheap query says whether anything came. No page is kept, and nothing
of it is one person's: who sees what is asked each time.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np
import numpy.typing as npt
from django.contrib.postgres.aggregates import ArrayAgg
from django.db import transaction
from django.db.models import Count, Exists, FloatField, Max, OuterRef
from django.db.models.fields.json import KeyTransform
from django.db.models.functions import Cast, Extract, Left, Now

from webapp.benchmarks.models import Benchmark
from webapp.checkpoints.models import Checkpoint
from webapp.core.models import User
from webapp.leaderboard.models import Change
from webapp.projects.access import seen_projects
from webapp.projects.models import Project
from webapp.runs.models import Evaluation

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
HASH = 20  # characters of a hash, which tell any two apart: 80 bits
CHANGES_KEPT = timedelta(hours=1)
Version = tuple[int | None, int]
_ARCHITECTURE_ENDINGS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a checkpoint apart from its scores; blank where nothing is."""

    pk: int
    name: str
    family: str
    parameters: int | None
    dtype: str
    teacher: str
    owner: str
    tags: tuple[str, ...]
    parent: int | None
    students: frozenset[int]  # the projects in which those lie that were trained from it

    @property
    def is_student(self) -> bool:
        """Whether it was trained from another checkpoint, or by a distillation."""
        return self.parent is not None or bool(self.teacher)


@dataclass(frozen=True)
class Scores:
    """Graded evaluations of checkpoints that are not archived; arrays run alike."""

    benchmarks: Sequence[tuple[str, str]]  # (name, title); of one name the newest is last
    projects: Mapping[int, str]
    facts: Mapping[int, Facts]  # by checkpoint
    viewed: frozenset[int] | None  # projects that the person sees; None is all
    pk: Ints
    checkpoint: Ints
    benchmark: Ints  # an index of ``benchmarks``
    measurement: Ints  # one number for each benchmark's name and measurement hash
    created: Floats  # seconds since 1970
    score: Floats  # pass@1; nan where samples have no verdict
    project: Ints  # the run's
    home: Ints  # the checkpoint's project
    version: Version = (None, 0)  # what else is kept beside them is good as long

    def seen(self, user: User) -> Scores:
        """Those that stand on the person's leaderboard: one query, or none."""
        if user.is_staff:
            return self
        viewed = seen_projects(user)
        keys = np.array(sorted(viewed), dtype=np.int64)
        there = np.isin(self.project, keys) & np.isin(self.home, keys)
        return replace(self._of(there), viewed=viewed)

    def of_project(self, name: str) -> Scores:
        """Those of one project's runs; a blank name means all."""
        if not name:
            return self
        keys = [key for key, each in self.projects.items() if each == name]
        return self._of(np.isin(self.project, keys))

    def on(self, names: Collection[str]) -> Scores:
        """Those on benchmarks of these names."""
        wanted = np.array([name in names for name, _ in self.benchmarks], dtype=bool)
        return self._of(wanted[self.benchmark])

    def newest(
        self, most: int, *, first: Collection[int | None], without: Collection[int]
    ) -> list[int]:
        """At most so many evaluations: those of the ``first`` checkpoints, then by age."""
        left = self._of(~np.isin(self.pk, _ints(list(without))))
        later = ~np.isin(left.checkpoint, _ints([key for key in first if key is not None]))
        order = np.lexsort((-left.pk, -left.created, later))[:most]
        found: list[int] = left.pk[order].tolist()
        return found

    def _of(self, there: npt.NDArray[np.bool_]) -> Scores:
        return replace(
            self, pk=self.pk[there], checkpoint=self.checkpoint[there],
            benchmark=self.benchmark[there], measurement=self.measurement[there],
            created=self.created[there], score=self.score[there], project=self.project[there],
            home=self.home[there],
        )  # fmt: skip

    def counts(self) -> list[tuple[str, str, str, int]]:
        """(benchmark, its newest title, project, evaluations), in order of the benchmarks."""
        size = 1 + self.project.max(initial=0)
        pairs, counts = np.unique(self.benchmark * size + self.project, return_counts=True)
        places, projects = np.divmod(pairs, size)
        found = [self.benchmarks[place] for place in places.tolist()]
        titles = dict(found)
        return [
            (name, titles[name], self.projects[project], count)
            for (name, _), project, count in zip(
                found, projects.tolist(), counts.tolist(), strict=True
            )
        ]

    def checkpoints(self) -> dict[int, Facts]:
        """The checkpoints that have one of these, by primary key."""
        return {pk: self.facts[pk] for pk in np.unique(self.checkpoint).tolist()}

    def is_parent(self, facts: Facts) -> bool:
        """Whether the person sees a student of the checkpoint."""
        if self.viewed is None:
            return bool(facts.students)
        return not facts.students.isdisjoint(self.viewed)


class _Keeper:
    """The scores that this process has read last, for all of its threads."""

    def __init__(self) -> None:
        self._reading = threading.Lock()
        self._kept: Scores | None = None

    def current(self) -> Scores:
        """All scores as they are now: one query where nothing changed."""
        version, kept = _version(), self._kept
        if kept is not None and kept.version == version:
            return kept
        with self._reading:
            # Before the scores: what changes in between is read too soon, never too late.
            version = _version()
            if self._kept is None or self._kept.version != version:
                self._kept = replace(_read(), version=version)
            return self._kept


current = _Keeper().current


def forget_changes() -> int:
    """Take away the notes of old changes; returns how many."""
    with transaction.atomic():
        gone = Change.objects.filter(at__lt=Now() - CHANGES_KEPT).delete()[0]
        if gone:
            Change.objects.create()  # so that no version comes twice
    return gone


def family_of(architecture: str) -> str:
    """The architecture without what its model is for: Qwen2 of Qwen2ForCausalLM."""
    for ending in _ARCHITECTURE_ENDINGS:
        architecture = architecture.removesuffix(ending)
    return architecture


def _version() -> Version:
    """What no two states have in common.

    A number is drawn when its change is made, and seen when that is committed: a lower one may come
    later, so the greatest alone does not tell.
    """
    found = Change.objects.aggregate(last=Max("pk"), count=Count("pk"))
    return found["last"], found["count"]


def _read() -> Scores:
    """Five queries; texts stay in the database."""
    among = Evaluation.objects.filter(
        metrics__isnull=False, checkpoint__isnull=False, checkpoint__archived_at=None
    )
    given = among.order_by().aggregate(
        pks=ArrayAgg("pk"), checkpoints=ArrayAgg("checkpoint_id"),
        benchmarks=ArrayAgg("benchmark_id"), hashes=ArrayAgg(Left("measurement_hash", HASH)),
        created=ArrayAgg(Cast(Extract("created_at", "epoch"), FloatField())),
        scores=ArrayAgg("pass_at_1"), projects=ArrayAgg("run__project_id"),
        homes=ArrayAgg("checkpoint__project_id"),
    )  # fmt: skip
    columns = {name: values or () for name, values in given.items()}
    rows = Benchmark.objects.filter(pk__in=set(columns["benchmarks"])).order_by(
        "name", "created_at"
    )
    benchmarks = list(rows.values_list("pk", "name", "title"))
    places = {pk: place for place, (pk, _, _) in enumerate(benchmarks)}
    benchmark = [places[pk] for pk in columns["benchmarks"]]
    numbers: dict[tuple[str, str], int] = {}
    pairs = zip((benchmarks[place][1] for place in benchmark), columns["hashes"], strict=True)
    measurement = [numbers.setdefault(pair, len(numbers)) for pair in pairs]
    facts = _facts()
    every = Scores(
        benchmarks=[(name, title) for _, name, title in benchmarks],
        projects=dict(Project.objects.values_list("pk", "name")),
        facts=facts,
        viewed=None,
        pk=_ints(columns["pks"]),
        checkpoint=_ints(columns["checkpoints"]),
        benchmark=_ints(benchmark),
        measurement=_ints(measurement),
        created=np.array(columns["created"], dtype=np.float64),
        score=np.array(columns["scores"], dtype=np.float64),  # None becomes nan
        project=_ints(columns["projects"]),
        home=_ints(columns["homes"]),
    )
    # A checkpoint may have been deleted in between.
    return every._of(np.isin(every.checkpoint, _ints(list(facts))))


def _ints(values: Sequence[int]) -> Ints:
    return np.array(values, dtype=np.int64)


def _facts() -> dict[int, Facts]:
    """Of the checkpoints that have a score, by primary key."""
    students: dict[int, set[int]] = {}
    taught = Checkpoint.objects.filter(parent__isnull=False).order_by()
    for parent, project in taught.values_list("parent_id", "project_id").distinct():
        students.setdefault(parent, set()).add(project)
    scored = Evaluation.objects.filter(checkpoint=OuterRef("pk"), metrics__isnull=False)
    rows = (
        Checkpoint.objects.filter(Exists(scored))
        .annotate(teacher=KeyTransform("teacher", "produced_by__config"))
        .order_by("pk")
        .values_list(
            "pk", "name", "architecture", "parameters", "dtype", "teacher", "owner__username",
            "tags", "parent_id",
        )
    )  # fmt: skip
    return {
        pk: Facts(
            pk, name, family_of(architecture), parameters, dtype, str(teacher or ""), owner,
            tuple(tags), parent, frozenset(students.get(pk, ())),
        )
        for pk, name, architecture, parameters, dtype, teacher, owner, tags, parent in rows
    }  # fmt: skip

"""Every score of the installation as columns of numbers, kept in memory by each web process.

A board is made of all scores that a person sees: to read them anew for every page costs the
database and Python more than all the rest of it. What is kept is good until a statement changes
something that it holds; such a statement leaves a row in the table of changes (``changes.sql``),
in its own transaction, so one cheap query says whether anything came, and where evaluations came
only those are read. No page is kept, and nothing of it is one person's: who sees what is asked
each time.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
from django.contrib.postgres.aggregates import ArrayAgg
from django.db import transaction
from django.db.models import Count, FloatField, Max, Q, QuerySet, Sum
from django.db.models.fields.json import KeyTransform
from django.db.models.functions import Cast, Extract, Left, Now

from webapp.benchmarks.models import Benchmark
from webapp.checkpoints.models import Checkpoint
from webapp.core.models import User
from webapp.leaderboard.memo import Memo
from webapp.leaderboard.models import Change
from webapp.projects.access import seen_projects
from webapp.projects.models import Project
from webapp.runs.models import Evaluation

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
HASH = 20  # characters of a hash, which tell any two apart: 80 bits
CHANGES_KEPT = timedelta(hours=1)
MOST_CHANGED = 500  # evaluations: beyond, all are read anew
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

    benchmarks: Sequence[tuple[int, str, str]]  # (key, name, title); of a name the newest is last
    numbers: Mapping[tuple[str, str], int]  # measurements, by benchmark's name and hash
    projects: Mapping[int, str]
    facts: Mapping[int, Facts]  # by checkpoint
    viewed: frozenset[int] | None  # projects that the person sees; None is all
    pk: Ints
    checkpoint: Ints
    benchmark: Ints  # an index of ``benchmarks``
    measurement: Ints  # one of ``numbers``
    created: Floats  # seconds since 1970
    score: Floats  # pass@1; nan where samples have no verdict
    project: Ints  # the run's
    home: Ints  # the checkpoint's project
    memo: Memo  # what else is kept, which is good as long

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
        wanted = np.array([name in names for _, name, _ in self.benchmarks], dtype=bool)
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
        columns: dict[str, Any] = {name: getattr(self, name)[there] for name in _COLUMNS}
        return replace(self, **columns)

    def counts(self) -> list[tuple[str, str, str, int]]:
        """(benchmark, its newest title, project, evaluations), in order of the benchmarks."""
        size = 1 + self.project.max(initial=0)
        pairs, counts = np.unique(self.benchmark * size + self.project, return_counts=True)
        places, projects = np.divmod(pairs, size)
        found = [self.benchmarks[place][1:] for place in places.tolist()]
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


_COLUMNS = ("pk", "checkpoint", "benchmark", "measurement", "created", "score", "project", "home")
_Version = tuple[int, int, int]


class _Keeper:
    """The scores that this process has read last, for all of its threads."""

    def __init__(self) -> None:
        self._reading = threading.Lock()
        self._kept: tuple[_Version, frozenset[int], Scores] | None = None

    def current(self) -> Scores:
        """All scores as they are now: one query where nothing changed."""
        version, kept = _version(), self._kept
        if kept is not None and kept[0] == version:
            return kept[2]
        with self._reading:
            # Before the scores: what changes in between is read too soon, never too late.
            notes = dict(Change.objects.values_list("pk", "evaluation"))
            version = max(notes, default=0), len(notes), sum(notes)
            if self._kept is None or self._kept[0] != version:
                self._kept = version, frozenset(notes), self._read(notes)
            return self._kept[2]

    def _read(self, notes: Mapping[int, int | None]) -> Scores:
        if self._kept is None:
            return _read()
        _, seen, before = self._kept
        changed = {notes[pk] for pk in notes.keys() - seen}
        known = {pk for pk in changed if pk is not None}
        # Where a note is gone, others may be that were never seen.
        if len(known) < len(changed) or len(known) > MOST_CHANGED or not notes.keys() >= seen:
            return _read()
        return _changed(before, known) or _read()


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


def _version() -> _Version:
    """What no two states have in common.

    A number is drawn when its change is made, and seen when that is committed: a lower one may come
    later, so the greatest alone does not tell; nor does it with their count, since old notes go.
    """
    found = Change.objects.aggregate(last=Max("pk"), count=Count("pk"), sum=Sum("pk"))
    return found["last"] or 0, found["count"], int(found["sum"] or 0)


_GRADED = Q(metrics__isnull=False, checkpoint__isnull=False, checkpoint__archived_at=None)


def _read() -> Scores:
    """All of them: five queries; texts stay in the database."""
    rows = _rows(Evaluation.objects.filter(_GRADED))
    benchmarks = Benchmark.objects.filter(pk__in=set(rows["benchmark"]))
    named = list(benchmarks.order_by("name", "created_at").values_list("pk", "name", "title"))
    projects = dict(Project.objects.values_list("pk", "name"))
    facts = _facts(set(rows["checkpoint"]))
    return _scores(rows, benchmarks=named, numbers={}, projects=projects, facts=facts, memo=Memo())


def _changed(before: Scores, changed: Collection[int]) -> Scores | None:
    """They after these evaluations came, changed or went; None where that is not all."""
    rows = _rows(Evaluation.objects.filter(_GRADED, pk__in=changed))
    known = {pk for pk, _, _ in before.benchmarks}
    if not known.issuperset(rows["benchmark"]) or not before.projects.keys() >= {*rows["project"]}:
        return None
    new = _scores(
        rows,
        benchmarks=before.benchmarks,
        numbers=before.numbers,
        projects=before.projects,
        facts={**before.facts, **_facts(set(rows["checkpoint"]) - before.facts.keys())},
        memo=before.memo.without(changed),
    )
    left = before._of(~np.isin(before.pk, _ints(list(changed))))
    columns = {name: np.concatenate([getattr(left, name), getattr(new, name)]) for name in _COLUMNS}
    return replace(new, **columns)


def _rows(among: QuerySet[Evaluation]) -> dict[str, Sequence[Any]]:
    """Columns of the evaluations: one query, and one row that holds arrays."""
    fields = {
        "pk": "pk", "checkpoint": "checkpoint_id", "benchmark": "benchmark_id",
        "measurement": Left("measurement_hash", HASH),
        "created": Cast(Extract("created_at", "epoch"), FloatField()), "score": "pass_at_1",
        "project": "run__project_id", "home": "checkpoint__project_id",
    }  # fmt: skip
    # "of_": an alias hides a field of the same name from those that come after it.
    found = among.order_by().aggregate(
        **{f"of_{name}": ArrayAgg(fields[name]) for name in _COLUMNS}
    )
    return {name: found[f"of_{name}"] or () for name in _COLUMNS}


def _scores(
    rows: Mapping[str, Sequence[Any]],
    *,
    benchmarks: Sequence[tuple[int, str, str]],
    numbers: Mapping[tuple[str, str], int],
    projects: Mapping[int, str],
    facts: Mapping[int, Facts],
    memo: Memo,
) -> Scores:
    places = {pk: place for place, (pk, _, _) in enumerate(benchmarks)}
    benchmark, numbers = [places[pk] for pk in rows["benchmark"]], dict(numbers)
    pairs = zip((benchmarks[place][1] for place in benchmark), rows["measurement"], strict=True)
    measurement = [numbers.setdefault(pair, len(numbers)) for pair in pairs]
    every = Scores(
        benchmarks=benchmarks,
        numbers=numbers,
        projects=projects,
        facts=facts,
        viewed=None,
        pk=_ints(rows["pk"]),
        checkpoint=_ints(rows["checkpoint"]),
        benchmark=_ints(benchmark),
        measurement=_ints(measurement),
        created=np.array(rows["created"], dtype=np.float64),
        score=np.array(rows["score"], dtype=np.float64),  # None becomes nan
        project=_ints(rows["project"]),
        home=_ints(rows["home"]),
        memo=memo,
    )
    # A checkpoint may have been deleted in between.
    return every._of(np.isin(every.checkpoint, _ints(list(facts))))


def _ints(values: Sequence[int]) -> Ints:
    return np.array(values, dtype=np.int64)


def _facts(checkpoints: Collection[int]) -> dict[int, Facts]:
    """Of these checkpoints, by primary key."""
    if not checkpoints:
        return {}
    students: dict[int, set[int]] = {}
    taught = Checkpoint.objects.filter(parent__in=checkpoints).order_by()
    for parent, project in taught.values_list("parent_id", "project_id").distinct():
        students.setdefault(parent, set()).add(project)
    rows = (
        Checkpoint.objects.filter(pk__in=checkpoints)
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

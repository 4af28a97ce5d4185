"""What is kept in memory of the scores is what the database holds, at every moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import fields
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from django.contrib.auth import get_user_model
from django.db import connection, transaction
from django.utils import timezone

from evaluator.protocol import PRESETS
from tests.webapp.samples import (
    arithmetic,
    make_benchmark,
    make_checkpoint,
    make_evaluation,
    make_project,
)
from webapp.benchmarks.models import Benchmark
from webapp.checkpoints.models import Checkpoint
from webapp.leaderboard import columns, queries, scores, standings
from webapp.leaderboard.models import Change
from webapp.leaderboard.scores import Scores
from webapp.projects.models import Project, Role
from webapp.runs.models import Evaluation, Run

PROBLEMS = arithmetic(3)


def same(one: Scores, other: Scores) -> bool:
    """Whether they hold the same; the order of evaluations is nobody's."""
    if (one.benchmarks, one.projects, one.facts) != (other.benchmarks, other.projects, other.facts):
        return False
    orders = np.argsort(one.pk), np.argsort(other.pk)
    arrays = [each.name for each in fields(Scores) if each.type in {"Ints", "Floats"}]
    assert {"pk", "score", "home"} <= set(arrays)
    names = [name for name in arrays if name != "measurement"]  # its numbers are nobody's either
    groups = [
        [np.flatnonzero(each.measurement == number).tolist() for number in each.measurement]
        for each in (one._of(orders[0]), other._of(orders[1]))  # type: ignore[arg-type]
    ]
    return groups[0] == groups[1] and all(
        np.array_equal(
            getattr(one, name)[orders[0]], getattr(other, name)[orders[1]],
            equal_nan=name == "score",
        )
        for name in names
    )  # fmt: skip


@pytest.fixture
def measured(user: Any) -> Evaluation:
    """One score, of a student whose base has one too."""
    benchmark = make_benchmark(PROBLEMS)
    base = make_checkpoint(user, "base")
    make_evaluation(user, base, benchmark, PROBLEMS, samples=2)
    student = make_checkpoint(user, "student", parent=base)
    return make_evaluation(user, student, benchmark, PROBLEMS, samples=2, seed=1)


def again(found: Evaluation) -> None:
    make_evaluation(
        found.run.owner, found.checkpoint, found.benchmark, PROBLEMS, samples=2, seed=5,
        protocol=PRESETS["greedy"],
    )  # fmt: skip


def regraded(found: Evaluation) -> None:
    found.pass_at_1 = 0.123
    found.save()


def moved(found: Evaluation) -> None:
    found.run.project = make_project("elsewhere")
    found.run.save()


def sent_home(found: Evaluation) -> None:
    Checkpoint.objects.filter(name="student").update(project=make_project("another"))


CHANGES: list[Callable[[Evaluation], Any]] = [
    again, regraded, moved, sent_home,
    lambda found: found.delete(),
    lambda found: Evaluation.objects.filter(pk=found.pk).update(metrics=None),
    lambda found: Evaluation.objects.filter(pk=found.pk).update(measurement_hash="f" * 64),
    lambda found: Checkpoint.objects.filter(name="student").update(name="pupil"),
    lambda found: Checkpoint.objects.filter(name="student").update(tags=["best"]),
    lambda found: Checkpoint.objects.filter(name="student").update(archived_at=timezone.now()),
    lambda found: Checkpoint.objects.filter(name="student").update(parent=None),
    lambda found: make_checkpoint(found.run.owner, "third", parent=found.checkpoint),
    lambda found: Benchmark.objects.update(title="Sums"),
    lambda found: Project.objects.update(name="Renamed"),
    lambda found: get_user_model().objects.update(username="lovelace"),
]  # fmt: skip


@pytest.mark.django_db
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen_at_once(
    measured: Evaluation, change: Callable[[Evaluation], Any]
) -> None:
    before = scores.current()
    assert len(before.pk) == 2
    change(measured)
    after = scores.current()
    assert same(after, scores._read())
    assert not same(after, before)
    assert scores.current() is after


@pytest.mark.django_db
def test_the_teacher_of_a_score_comes_from_its_run(user: Any, measured: Evaluation) -> None:
    run = Run.objects.get(pk=measured.run_id)
    Checkpoint.objects.filter(name="student").update(produced_by=run)
    assert scores.current().facts[measured.checkpoint_id or 0].teacher == ""
    run.config = run.config | {"teacher": "r1"}
    run.save()
    assert scores.current().facts[measured.checkpoint_id or 0].teacher == "r1"


@pytest.mark.django_db
def test_what_no_board_says_changes_nothing(
    measured: Evaluation, django_assert_num_queries: Any
) -> None:
    before = scores.current()
    measured.save()
    measured.run.save()
    Run.objects.update(state="cancelled")
    Checkpoint.objects.update(notes="looked at")
    get_user_model().objects.update(last_login=timezone.now())
    with django_assert_num_queries(1):
        assert scores.current() is before


@pytest.mark.django_db
def test_what_rows_are_sorted_by_is_as_good_as_the_scores(
    measured: Evaluation, django_assert_num_queries: Any
) -> None:
    column = columns.parse("arithmetic:tokens", {})
    assert column is not None
    before = standings.values(scores.current().version, column)[measured.pk]
    assert measured.metrics is not None
    measured.metrics = measured.metrics | {"tokens": {"mean": before + 10}}
    measured.save()
    assert standings.values(scores.current().version, column)[measured.pk] == before + 10
    measured.engine = measured.engine | {"dtype": "float8"}
    measured.save()
    version = scores.current().version
    assert standings.number_formats(version)[measured.pk] == "float8"
    assert standings.values(version, column)[measured.pk] == before + 10
    (shown,) = queries.measured([measured.pk], version)
    with django_assert_num_queries(0):
        standings.values(version, column)
        standings.number_formats(version)
        assert queries.measured([measured.pk], version) == [shown]
    assert shown.engine["dtype"] == "float8"
    for changed in (
        {"engine": {"name": "replay"}},
        {"protocol": {"sampling": {"temperature": 0.9}}},
    ):
        Evaluation.objects.update(**changed)
        (after,) = queries.measured([measured.pk], scores.current().version)
        assert after != shown
        shown = after
    measured.delete()
    assert queries.measured([measured.pk], scores.current().version) == []


@pytest.mark.django_db
def test_a_process_knows_no_more_figures_than_it_may(
    user: Any, measured: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    again(measured)
    version, keys = scores.current().version, [*Evaluation.objects.values_list("pk", flat=True)]
    known = queries._known(version)
    for most, kept in ((1, 0), (2, 1), (3, 3)):
        monkeypatch.setattr(queries, "MOST_KNOWN", most)
        assert len(queries.measured(keys[:2], version)) == 2
        assert len(queries.measured(keys, version)) == 3
        assert len(known) == kept


@pytest.mark.django_db
def test_a_person_sees_their_projects(user: Any, measured: Evaluation) -> None:
    mine = make_project("mine", {user: Role.VIEWER})
    other = get_user_model().objects.create_user("eve", password="a long enough password")
    other.memberships.all().delete()
    assert len(scores.current().seen(other).pk) == 0
    assert scores.current().seen(other).counts() == []
    base = scores.current().facts[Checkpoint.objects.get(name="base").pk]
    assert scores.current().seen(user).is_parent(base)
    assert not scores.current().seen(other).is_parent(base)
    measured.run.project = mine
    measured.run.save()
    seen = scores.current().seen(user)
    assert sorted(name for _, _, name, _ in seen.counts()) == ["Main", "mine"]
    assert seen.of_project("mine").pk.tolist() == [measured.pk]


@pytest.mark.django_db(transaction=True)
def test_an_earlier_number_that_is_committed_later_is_seen(user: Any) -> None:
    """Numbers are drawn when a change is made: the greatest does not tell of this one."""
    benchmark = make_benchmark(PROBLEMS)
    checkpoint = make_checkpoint(user, "m")
    drawn, to_commit = threading.Event(), threading.Event()

    def slow() -> None:
        try:
            with transaction.atomic():
                make_evaluation(user, checkpoint, benchmark, PROBLEMS, samples=2)
                drawn.set()
                assert to_commit.wait(30)
        finally:
            connection.close()

    thread = threading.Thread(target=slow)
    thread.start()
    assert drawn.wait(30)
    quick = make_evaluation(user, checkpoint, benchmark, PROBLEMS, samples=2, seed=1)
    assert scores.current().pk.tolist() == [quick.pk]
    last = Change.objects.latest("pk").pk
    to_commit.set()
    thread.join(30)
    assert Change.objects.latest("pk").pk == last
    assert len(scores.current().pk) == 2


@pytest.mark.django_db
def test_forgetting_notes_brings_no_old_version_back(measured: Evaluation) -> None:
    versions = {scores._version()}
    for _ in range(3):
        Change.objects.update(at=timezone.now() - 2 * scores.CHANGES_KEPT)
        assert scores.forget_changes() > 0
        assert scores._version() not in versions
        versions.add(scores._version())
    assert Change.objects.count() == 1
    assert scores.forget_changes() == 0
    Change.objects.update(at=timezone.now() - scores.CHANGES_KEPT + timedelta(minutes=1))
    assert scores.forget_changes() == 0

"""What is kept in memory of the scores is what the database holds, at every moment."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Collection
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
from webapp.leaderboard import columns, memo, queries, scores, standings
from webapp.leaderboard.models import Change
from webapp.leaderboard.scores import Scores
from webapp.projects.models import Project, Role
from webapp.runs.models import Evaluation, Run

PROBLEMS = arithmetic(3)


def same(one: Scores, other: Scores) -> bool:
    """Whether they say the same; the order of evaluations is nobody's."""
    if one.counts() != other.counts() or one.checkpoints() != other.checkpoints():
        return False
    orders = np.argsort(one.pk), np.argsort(other.pk)
    arrays = [each.name for each in fields(Scores) if each.type in {"Ints", "Floats"}]
    assert set(scores._COLUMNS) == set(arrays)
    # The numbers of benchmarks and measurements are nobody's either.
    names = [name for name in arrays if name not in {"benchmark", "measurement"}]
    titles = [
        [each.benchmarks[place] for place in each.benchmark[order].tolist()]
        for each, order in zip((one, other), orders, strict=True)
    ]
    if titles[0] != titles[1]:
        return False
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
def test_of_an_evaluation_that_changed_nothing_else_is_read(
    user: Any, measured: Evaluation, django_assert_num_queries: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores.current()
    with django_assert_num_queries(0):
        monkeypatch.setattr(scores, "_read", None)
    again(measured)  # of the run that is made for it nothing is noted
    with django_assert_num_queries(3):
        assert len(scores.current().pk) == 3
    measured.pass_at_1 = 0.5
    measured.save()
    with django_assert_num_queries(3):
        assert 0.5 in scores.current().score
    third = make_checkpoint(user, "third")
    monkeypatch.undo()
    scores.current()
    monkeypatch.setattr(scores, "_read", None)
    make_evaluation(user, third, measured.benchmark, PROBLEMS, samples=2)
    with django_assert_num_queries(5):
        assert "third" in {each.name for each in scores.current().checkpoints().values()}


def step(rng: random.Random, user: Any) -> None:
    """One thing that happens to an installation."""
    graded = list(Evaluation.objects.filter(metrics__isnull=False))
    checkpoints = list(Checkpoint.objects.all())
    one = rng.choice(graded) if graded else None
    match rng.choice(("measure", "measure", "measure", "once more", "ungrade", "delete", "regrade",
                      "move", "upload", "archive", "rename", "benchmark", "forget")):  # fmt: skip
        case "measure":
            benchmark, seed = rng.choice(list(Benchmark.objects.all())), rng.randrange(1000)
            for_it = arithmetic(benchmark.problems.count())
            make_evaluation(
                user, rng.choice(checkpoints), benchmark, for_it, samples=2, seed=seed,
                protocol=PRESETS[rng.choice(("greedy", "quick"))],
            )  # fmt: skip
        case "once more" if one:
            Evaluation.objects.filter(pk=one.pk).update(created_at=timezone.now())
        case "ungrade" if one:
            Evaluation.objects.filter(pk=one.pk).update(metrics=None)
        case "delete" if one:
            one.delete()
        case "regrade" if one:
            assert one.metrics is not None
            tokens = {"tokens": {"mean": rng.random()}}
            Evaluation.objects.filter(pk=one.pk).update(
                metrics=one.metrics | tokens, pass_at_1=rng.random(), engine={"dtype": "int8"}
            )
        case "move" if one:
            Run.objects.filter(pk=one.run_id).update(project=make_project(f"p{rng.random()}"))
        case "upload":
            make_checkpoint(user, f"c{rng.random()}", parent=rng.choice(checkpoints))
        case "archive":
            Checkpoint.objects.filter(pk=rng.choice(checkpoints).pk).update(
                archived_at=rng.choice((None, timezone.now()))
            )
        case "rename":
            Checkpoint.objects.filter(pk=rng.choice(checkpoints).pk).update(name=f"r{rng.random()}")
        case "benchmark" if Benchmark.objects.count() < 4:
            size = 1 + Benchmark.objects.count()  # the third has three problems
            make_benchmark(arithmetic(size), name=rng.choice(("sums", "more")))
        case "forget":
            Change.objects.update(at=timezone.now() - 2 * scores.CHANGES_KEPT)
            scores.forget_changes()


@pytest.mark.django_db
@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_what_is_kept_is_what_is_there(
    user: Any, measured: Evaluation, seed: int
) -> None:
    rng = random.Random(seed)
    column = columns.parse("arithmetic:tokens", {})
    assert column is not None
    for _ in range(25):
        for _ in range(rng.randrange(3)):
            step(rng, user)
        kept, anew = scores.current(), scores._read()
        assert same(kept, anew)
        pks = kept.pk.tolist()
        assert queries.measured(pks, kept.memo) == queries.measured(pks, anew.memo)
        assert standings.values(kept, column) == standings.values(anew, column)
        assert standings.number_formats(kept) == standings.number_formats(anew)


@pytest.mark.django_db
def test_what_was_read_of_an_evaluation_is_not_read_again(
    user: Any, measured: Evaluation, django_assert_num_queries: Any
) -> None:
    column = columns.parse("arithmetic:tokens", {})
    assert column is not None

    def look() -> None:
        kept = scores.current()
        queries.measured(kept.pk.tolist(), kept.memo)
        standings.values(kept, column)
        standings.number_formats(kept)

    look()
    with django_assert_num_queries(1):  # whether anything changed
        look()
    again(measured)
    with django_assert_num_queries(6) as captured:
        look()
    for query in captured.captured_queries[3:]:
        assert str(measured.pk) not in query["sql"], "only what came is read"


def test_what_is_known_has_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[set[int]] = []

    def read(keys: Collection[int]) -> dict[int, int]:
        asked.append(set(keys))
        return {key: key * key for key in keys if key < 10}

    known = memo.Known[int](3)
    assert known.of([1, 2], read) == {1: 1, 2: 4}
    assert known.of([2, 3, 3, 11], read) == {2: 4, 3: 9}
    assert known.of([1, 2, 3], read) == {1: 1, 2: 4, 3: 9}
    assert asked == [{1, 2}, {3, 11}], "what is not there is asked for again"
    assert known.of([3, 4], read) == {3: 9, 4: 16}, "too many: it begins anew"
    assert known.of([1, 2, 3, 4, 5], read) == {key: key * key for key in range(1, 6)}
    assert asked[2:] == [{4}, {1, 2, 3, 5}]
    assert known.of([5], read) == {5: 25}
    assert asked[4:] == [{5}], "more than fit are not kept"
    monkeypatch.setattr(memo, "MOST_COLUMNS", 2)
    monkeypatch.setattr(memo, "MOST_RANKS", 2)
    whole = memo.Memo()
    for key in ("a", "b", "c"):
        whole.column(key).of([1], read)
        whole.ranks((1, len(asked)), lambda: {1: 1})
    assert (len(whole._columns), len(whole._ranks)) == (1, 1)


def test_ranks_are_kept_until_one_of_theirs_changes() -> None:
    whole = memo.Memo()
    whole.ranks((1, 2), lambda: {1: 1, 2: 2})
    whole.ranks((3, 4), lambda: {3: 1, 4: 1})
    left = whole.without([2])
    assert left.ranks((3, 4), dict) == {3: 1, 4: 1}
    assert left.ranks((1, 2), lambda: {1: 2, 2: 1}) == {1: 2, 2: 1}
    assert whole.ranks((1, 2), dict) == {1: 1, 2: 2}


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
def test_notes_that_come_late_while_old_ones_go_are_seen(measured: Evaluation) -> None:
    """Notes 3 and 4 were drawn before 5 and committed after it, as old ones were taken away."""
    versions = set()
    for notes in ((1, 2, 5), (3, 4, 5)):
        Change.objects.all().delete()
        Change.objects.bulk_create(Change(pk=pk) for pk in notes)
        versions.add(scores._version())
    assert len(versions) == 2


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

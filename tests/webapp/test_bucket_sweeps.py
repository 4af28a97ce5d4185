"""Sweeps of a store in a bucket: what is deleted leaves it, what comes back meanwhile stays.

The first ones have a bucket that is only names, the later ones moto's, seen by several hosts.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.files.storage import storages
from django.db import connection
from django.utils import timezone

from evaluator.benchmarks import arithmetic
from evaluator.contests import Population, read_bundle
from tests.bucket import Host
from tests.evaluator import programs
from tests.webapp import samples
from tests.webapp.models import model_files, write
from webapp.benchmarks import contests
from webapp.benchmarks import services as installing
from webapp.checkpoints import services
from webapp.checkpoints.models import Checkpoint
from webapp.core import store
from webapp.housekeeping import garbage, removal, retention
from webapp.runs import files
from webapp.runs.models import Run, State

pytestmark = pytest.mark.django_db(transaction=True)


def is_locked() -> bool:
    """Whether our transaction has the store's lock."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted "
            "AND pid = pg_backend_pid()"
        )
        return cursor.fetchone() == (1,)


@pytest.fixture
def names(settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The folders in a bucket that is only their names."""
    settings.MEDIA_ROOT = tmp_path / "files"
    names: set[str] = set()

    def remove(relative: str) -> None:
        assert is_locked(), "removed while others may register it"
        names.discard(relative)

    monkeypatch.setattr(store, "publish", lambda relative, source=None: names.add(relative))
    monkeypatch.setattr(store, "remove", remove)
    return names


def registered(user: Any, tmp_path: Path, name: str) -> Checkpoint:
    folder = write(tmp_path / "made" / name, model_files())
    return services.register_folder(owner=user, name=name, folder=folder)


@pytest.mark.parametrize("copied", [True, False])
def test_a_deleted_checkpoint_leaves_the_bucket_also_where_this_host_has_no_copy(
    user: Any, tmp_path: Path, names: set[str], copied: bool
) -> None:
    checkpoint = registered(user, tmp_path, "one")
    assert names == {checkpoint.path}
    if not copied:
        garbage.remove(garbage.place(checkpoint.path))
    removal.delete_checkpoint(checkpoint, by=user)
    assert names == set()
    assert not garbage.place(checkpoint.path).exists()


def test_what_is_referred_to_stays_in_the_bucket(
    user: Any, tmp_path: Path, names: set[str]
) -> None:
    one, two = (registered(user, tmp_path, name) for name in ("one", "two"))
    removal.delete_checkpoint(one, by=user)
    assert names == {two.path}


def test_a_checkpoint_that_comes_back_while_it_is_removed_is_in_the_bucket(
    user: Any, tmp_path: Path, names: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = registered(user, tmp_path, "one")
    locked = services.lock_store

    def after_the_sweep() -> None:
        Checkpoint.objects.all().delete()
        garbage.sweep([one.path])
        locked()

    monkeypatch.setattr(services, "lock_store", after_the_sweep)
    two = registered(user, tmp_path, "two")
    assert names == {two.path} == {one.path}
    assert (garbage.place(two.path) / "config.json").exists()


def test_nothing_is_swept_between_a_file_and_its_row(
    names: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same contents an earlier file may lie there, whose grace time is over."""
    published = []

    def publish(relative: str, source: Path | None = None) -> None:
        published.append((relative.partition("/")[0], is_locked()))

    monkeypatch.setattr(store, "publish", publish)
    problems = arithmetic.generate(3, seed=1)
    installing.install_benchmark("arithmetic", problems, "a test")
    installing.install_prompt_set("sums", problems)
    contests.install_contests([read_bundle(programs.bundle("9001"))])
    contests.install_population(Population.of("people", [1500, 1600]))
    folders = ["benchmarks", "prompts", "contests", "populations"]
    assert published == [(folder, True) for folder in folders]


def put(root: Path, relative: str, data: bytes = b"abc") -> None:
    write((root / relative).parent, {Path(relative).name: data})
    store.publish(relative)


def test_garbage_that_no_round_has_a_copy_of_leaves_the_bucket(
    user: Any, tmp_path: Path, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever's round it is, after the grace time, entry by entry; what is referred to stays."""
    monkeypatch.setattr(garbage, "BATCH", 2)
    alpha = host("alpha")
    kept = registered(user, tmp_path, "kept")
    run = samples.make_run(user, "run", Run.Kind.DISTILLATION, State.RUNNING)
    put(alpha, f"runs/{run.pk}/1/segments/s")
    left = set(store.names())
    write(alpha / "checkpoints" / "feed", {"config.json": b"{}", "a/b": b"12345"})
    store.publish("checkpoints/feed")
    for name in ("runs/0/1/segments/s", "runs/0/2/segments/s", "chats/c", "reports/0/x.pdf"):
        put(alpha, name)
    bucket = storages["default"].bucket
    # Folders as a console makes them, and what nobody here knows.
    others = {"checkpoints/", "reports/", "reports/0/", "elsewhere/x"}
    for name in others:
        bucket.put_object(Key=name, Body=b"")
    start = timezone.now()
    for hours, name in enumerate(("beta", "gamma", "beta", "gamma", "alpha")):
        host(name)
        assert garbage.collect(grace=timedelta(hours=9), now=start + timedelta(hours=hours)) == []
    host("beta")
    swept = {"checkpoints/feed": 60, "runs/0": 6, "chats/c": 3, "reports/0/x.pdf": 3}
    found = garbage.collect(dry_run=True)
    assert {each.path for each in found} == swept.keys()
    removed = garbage.collect(grace=timedelta(hours=9), now=start + timedelta(hours=9))
    assert removed == found
    sizes = {each.path: each.size_bytes for each in removed}
    assert sizes.pop("checkpoints/feed") > swept.pop("checkpoints/feed")  # with its manifest
    assert sizes == swept
    assert set(store.names()) == left | others
    assert store.fetch(kept.path).joinpath("config.json").exists()
    # What alpha has of it, alpha's own rounds take away: others' have not begun its time anew.
    host("alpha")
    assert (alpha / "checkpoints" / "feed").exists()
    late = start + timedelta(hours=4 + 9)
    assert len(garbage.collect(grace=timedelta(hours=9), now=late)) == 4
    assert not (alpha / "checkpoints" / "feed").exists()
    assert (alpha / "runs" / str(run.pk)).exists()


def test_working_files_of_old_runs_go_on_every_host(user: Any, host: Host) -> None:
    run = samples.make_run(user, "run", Run.Kind.DISTILLATION, State.FAILED)
    now = timezone.now()
    Run.objects.update(finished_at=now)
    stage = samples.make_stage(run, 0, "train", "Train", state=State.FAILED)
    places = []
    for name in ("alpha", "beta"):
        host(name)
        places.append(files.stage_folder(stage) / "resume")
        write(places[-1], {"x": b"abc"})
    for name, place in zip(("alpha", "beta"), places, strict=True):
        host(name)
        assert retention.drop_working_files(now + timedelta(days=31)) == 3
        assert not place.exists()
        assert retention.drop_working_files(now + timedelta(days=31)) == 0

"""Sweeps of a store in a bucket: what is deleted leaves it, what comes back meanwhile stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from tests.webapp.models import model_files, write
from webapp.checkpoints import services
from webapp.checkpoints.models import Checkpoint
from webapp.core import store
from webapp.housekeeping import garbage, removal

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def bucket(settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The folders in a bucket that is only their names."""
    settings.MEDIA_ROOT = tmp_path / "files"
    names: set[str] = set()

    def remove(relative: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted "
                "AND pid = pg_backend_pid()"
            )
            assert cursor.fetchone() == (1,), "removed while others may register it"
        names.discard(relative)

    monkeypatch.setattr(store, "publish", lambda relative, source=None: names.add(relative))
    monkeypatch.setattr(store, "remove", remove)
    return names


def registered(user: Any, tmp_path: Path, name: str) -> Checkpoint:
    folder = write(tmp_path / "made" / name, model_files())
    return services.register_folder(owner=user, name=name, folder=folder)


@pytest.mark.parametrize("copied", [True, False])
def test_a_deleted_checkpoint_leaves_the_bucket_also_where_this_host_has_no_copy(
    user: Any, tmp_path: Path, bucket: set[str], copied: bool
) -> None:
    checkpoint = registered(user, tmp_path, "one")
    assert bucket == {checkpoint.path}
    if not copied:
        garbage.remove(garbage.place(checkpoint.path))
    removal.delete_checkpoint(checkpoint, by=user)
    assert bucket == set()
    assert not garbage.place(checkpoint.path).exists()


def test_what_is_referred_to_stays_in_the_bucket(
    user: Any, tmp_path: Path, bucket: set[str]
) -> None:
    one, two = (registered(user, tmp_path, name) for name in ("one", "two"))
    removal.delete_checkpoint(one, by=user)
    assert bucket == {two.path}


def test_a_checkpoint_that_comes_back_while_it_is_removed_is_in_the_bucket(
    user: Any, tmp_path: Path, bucket: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = registered(user, tmp_path, "one")
    locked = services.lock_store

    def after_the_sweep() -> None:
        Checkpoint.objects.all().delete()
        garbage.sweep([one.path])
        locked()

    monkeypatch.setattr(services, "lock_store", after_the_sweep)
    two = registered(user, tmp_path, "two")
    assert bucket == {two.path} == {one.path}
    assert (garbage.place(two.path) / "config.json").exists()

"""A training's resume states in a bucket: another host goes on, in the same weights."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.files.storage import storages

from distiller import sft
from distiller.recipe import Training
from tests.bucket import Host
from tests.distiller import samples
from webapp.checkpoints.models import Checkpoint
from webapp.checkpoints.services import register_folder
from webapp.core import store
from webapp.core.models import User
from webapp.projects.access import first_project
from webapp.runs import files, resuming, stages
from webapp.runs.models import Run, Stage, State, TrainingPoint
from workers import supervisor
from workers.tasks.stages import do_work

pytestmark = pytest.mark.django_db(transaction=True)
TRAINING = samples.FAST | {"save_seconds": 1e-9, "epochs": 5, "batch_size": 3}


@pytest.fixture
def train(user: User, host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """A run's train stage, queued on host alpha; corpus and base are in the bucket."""
    monkeypatch.setattr(stages, "ring", lambda stage, times: None)
    monkeypatch.setattr(stages, "is_full", lambda queue: False)
    alpha = host("alpha")
    made = samples.make_tiny("qwen2", tmp_path / "base")
    base = register_folder(owner=user, name="base", folder=made)
    run = Run.objects.create(
        project=first_project(), kind=Run.Kind.DISTILLATION, name="r", owner=user,
        state=State.RUNNING,
        config=samples.recipe(training=TRAINING, student="pupil").model_dump(mode="json"),
    )  # fmt: skip
    filtered = Stage.objects.create(
        run=run, kind="filter", title="f", position=0, queue="cpu", state=State.FINISHED
    )
    corpus = samples.sums(8, made, files.stage_folder(filtered) / "lease" / "corpus")
    store.publish(corpus.relative_to(alpha).as_posix())
    Stage.objects.filter(pk=filtered.pk).update(
        result={"corpus": corpus.relative_to(alpha).as_posix()}
    )
    stage = Stage.objects.create(
        run=run, kind="train", title="t", position=1, queue="gpu", state=State.QUEUED,
        config={"base": base.pk},
    )  # fmt: skip
    stage.shards.create(index=0, work={}, state=State.QUEUED)
    return stage


@pytest.fixture
def _cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The child is killed as soon as the state that it halts at is in the bucket."""
    pids: list[int] = []

    class Seen(supervisor.Child):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            pids.append(self.pid)

    publish = store.publish

    def published(relative: str, source: Path | None = None) -> None:
        publish(relative, source)
        if "/states/cpu-1/step-6-" in relative:
            os.kill(pids[-1], signal.SIGKILL)

    halting = Path(__file__).with_name("halting.py")
    monkeypatch.setattr(supervisor, "Child", Seen)
    monkeypatch.setattr(store, "publish", published)
    monkeypatch.setattr(
        supervisor, "child_command",
        lambda stage, spec: [sys.executable, str(halting), "stage", str(spec)],
    )  # fmt: skip


@pytest.mark.usefixtures("_cut_short")
def test_another_host_goes_on_and_ends_in_the_same_weights(
    train: Stage, host: Host, tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.RETORT_RETRY_SECONDS = 3600.0
    do_work("alpha/1", ["gpu"])
    shard = train.shards.get()
    assert (shard.state, "SIGKILL" in shard.error) == (State.QUEUED, True), shard.error
    place = store.relative_of(files.stage_folder(train) / resuming.FOLDER) + "/cpu-1"
    assert [name.partition("-")[0] for name in names(place)] == ["step"]  # older ones are gone
    train.shards.update(not_before=None)
    TrainingPoint.objects.all().delete()
    beta = host("beta")
    assert not (beta / "runs").exists()
    monkeypatch.setattr(
        supervisor, "child_command",
        lambda stage, spec: [sys.executable, "-m", "distiller", "stage", str(spec)],
    )  # fmt: skip
    do_work("beta/1", ["gpu"])
    train.refresh_from_db()
    assert train.state == State.FINISHED, train.error
    steps = sorted(TrainingPoint.objects.values_list("step", flat=True))
    assert steps == list(range(7, 15))  # 8 examples, 5 epochs, 3 a step
    corpus = store.fetch(train.run.stages.get(kind="filter").result["corpus"])
    unbroken = sft.train(
        corpus, tmp_path / "base", Training.model_validate(TRAINING), tmp_path / "out",
        resume=tmp_path / "none",
    )  # fmt: skip
    assert Checkpoint.objects.get(name="pupil").content_hash == unbroken.content_hash
    assert names(place) == []
    assert not any((files.stage_folder(train) / "resume").iterdir())


def names(place: str) -> list[str]:
    return [name.rpartition("/")[2] for name in store.folders(place)]


def state(stage: Stage, step: int, text: str = "state") -> Path:
    folder = files.stage_folder(stage) / "resume" / "cpu-1" / f"step-{step}"
    folder.mkdir(parents=True)
    (folder / "0.pt").write_text(text)
    return folder


def test_the_newest_state_is_brought_and_none_that_is_older_than_ours(
    train: Stage, host: Host
) -> None:
    keeper = resuming.Keeper(train)
    for step, lease in ((4, "aa"), (12, "bb")):
        folder = state(train, step, f"state {step}")
        keeper.offer(lease, folder)
        keeper.wait()
    place = store.relative_of(files.stage_folder(train) / resuming.FOLDER) + "/cpu-1"
    assert names(place) == ["step-12-bb"]
    assert not list(files.stage_folder(train).glob(f"{resuming.LINKS}*"))
    host("beta")
    ours = state(train, 8)
    resuming.bring(ours.parent)
    assert (ours.parent / "step-12" / "0.pt").read_text() == "state 12"
    (ours.parent / "step-12").rename(ours.parent / "step-20")
    resuming.bring(ours.parent)
    assert not (ours.parent / "step-12").exists()
    resuming.bring(ours.parent.with_name("cuda-2"))  # of another kind of training
    assert not ours.parent.with_name("cuda-2").exists()
    keeper.end()
    assert names(place) == []


def test_a_damaged_state_has_the_training_begin_anew(train: Stage, host: Host) -> None:
    keeper = resuming.Keeper(train)
    keeper.offer("aa", state(train, 4))
    keeper.wait()
    place = store.relative_of(files.stage_folder(train) / resuming.FOLDER) + "/cpu-1"
    damaged = storages["default"].bucket.Object(f"{place}/step-4-aa/0.pt")
    damaged.put(Body=b"bits", Metadata=damaged.metadata)
    host("beta")
    resume = files.stage_folder(train) / "resume" / "cpu-1"
    resuming.bring(resume)
    assert not resume.exists()


def test_a_state_that_has_gone_meanwhile_is_not_sent(train: Stage) -> None:
    keeper = resuming.Keeper(train)
    folder = state(train, 4)
    folder.rename(folder.with_name("step-4.part"))
    keeper.offer("aa", folder)
    keeper.wait()
    assert names(store.relative_of(files.stage_folder(train) / resuming.FOLDER) + "/cpu-1") == []
    assert not list(files.stage_folder(train).glob(f"{resuming.LINKS}*"))

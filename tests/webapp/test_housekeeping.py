"""Nothing that is referred to is lost, everything else goes in the end, and is named first."""

from __future__ import annotations

import os
import shutil
import uuid
from datetime import timedelta
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.utils import timezone
from hypothesis import HealthCheck
from hypothesis import settings as effort
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from tests.webapp import samples
from tests.webapp.models import model_files, write
from webapp.checkpoints import services, uploads
from webapp.checkpoints.ancestry import graph_of_checkpoint
from webapp.checkpoints.models import Checkpoint, Upload
from webapp.core.errors import UserError
from webapp.housekeeping import garbage, removal, retention
from webapp.housekeeping.models import TidiedStage, Unreferenced
from webapp.leaderboard.models import Report
from webapp.projects.access import first_project
from webapp.runs import files
from webapp.runs.models import Evaluation, Run, Shard, Stage, State

pytestmark = pytest.mark.django_db(transaction=True)

HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def store(settings: Any, tmp_path: Path) -> Path:
    settings.MEDIA_ROOT = tmp_path / "files"
    return tmp_path / "files"


def register(user: Any, name: str, content: int = 0) -> Checkpoint:
    folder = write(Path(settings.MEDIA_ROOT) / f"made-{uuid.uuid4().hex}", _content(content))
    return services.register_folder(owner=user, name=name, folder=folder, move=True)


def _content(number: int) -> dict[str, bytes]:
    return model_files() | {"notes.txt": str(number).encode()}


# --- the property


class Keeping(RuleBasedStateMachine):
    """Checkpoints of few contents, runs, uploads and litter come and go while rounds are made."""

    user: Any
    things = Bundle("things")

    def __init__(self) -> None:
        super().__init__()
        self.now = timezone.now()
        self.serial = 0

    def name(self) -> str:
        self.serial += 1
        return f"n{self.serial}-{uuid.uuid4().hex[:6]}"

    @initialize(target=things)
    def begin(self) -> Any:
        """Two names of one content, another content, a run, an upload: what rules can mix up."""
        checkpoints = [register(self.user, self.name(), content) for content in (0, 0, 1)]
        return multiple(*checkpoints, self.add_run(), self.begin_upload())

    @rule(target=things, content=st.integers(0, 2))
    def add_checkpoint(self, content: int) -> Any:
        return register(self.user, self.name(), content)

    @rule(target=things)
    def add_run(self) -> Any:
        run = samples.make_run(self.user, self.name(), Run.Kind.EVALUATION)
        write(files.store_path(f"runs/{run.pk}/1"), {"spec.json": b"{}"})
        return run

    @rule(target=things)
    def begin_upload(self) -> Any:
        upload = uploads.begin(self.user, self.name())
        write(uploads.folder_of(upload.pk), {"x": b"abc"})
        return upload

    @rule(folder=st.sampled_from(sorted(garbage.STORES)))
    def litter(self, folder: str) -> None:
        write(files.store_path(f"{folder}/{self.name()}"), {"x": b"abc"})

    @rule(thing=things)
    def archive(self, thing: Any) -> None:
        if isinstance(thing, Checkpoint | Run):
            removal.set_archived(thing, archived=True)

    @rule(thing=consumes(things))
    def delete(self, thing: Any) -> None:
        if isinstance(thing, Checkpoint):
            removal.delete_checkpoint(thing, by=thing.owner)
        elif isinstance(thing, Run):
            removal.delete_run(thing, by=thing.owner)
        else:
            uploads.delete(thing)

    @rule(thing=consumes(things))
    def delete_row_only(self, thing: Any) -> None:
        """A process died between the row and the files."""
        type(thing).objects.filter(pk=thing.pk).delete()

    @rule(thing=things)
    def release(self, thing: Any) -> None:
        if isinstance(thing, Checkpoint):
            thing.refresh_from_db()
            if thing.path:
                removal.release_files(thing, by=thing.owner)

    @rule(hours=st.integers(0, 12))
    def round(self, hours: int) -> None:
        self.now += hours * HOUR
        for found in garbage.collect(grace=3 * HOUR, now=self.now):
            assert not files.store_path(found.path).exists() or found.path in _referred()

    @invariant()
    def nothing_referred_to_is_lost(self) -> None:
        for path in _referred():
            assert any(files.store_path(path).iterdir()), path
        for checkpoint in Checkpoint.objects.exclude(path=""):
            there = {p.name for p in files.store_path(checkpoint.path).iterdir()}
            assert there == set(_content(0))

    def teardown(self) -> None:
        """In the end everything that nothing refers to is gone, and only that."""
        for _ in range(2):
            self.now += 11 * HOUR
            garbage.collect(grace=10 * HOUR, now=self.now)
        left = {
            f"{folder}/{entry.name}"
            for folder in garbage.STORES
            if files.store_path(folder).is_dir()
            for entry in os.scandir(files.store_path(folder))
            if folder not in garbage.NESTED or any(os.scandir(entry.path))
        }
        assert left == _referred()
        assert not Unreferenced.objects.exists()
        for model in (Upload, Run, Checkpoint):
            model.objects.all().delete()
        shutil.rmtree(settings.MEDIA_ROOT, ignore_errors=True)


def _referred() -> set[str]:
    """What rows refer to, said anew and not by the code under test."""
    found = {row.path for row in Checkpoint.objects.all() if row.path}
    found |= {f"runs/{row.pk}" for row in Run.objects.all()}
    live = ("receiving", "fetching", "checking")
    return found | {f"uploads/{row.pk.hex}" for row in Upload.objects.filter(state__in=live)}


def test_no_sequence_loses_a_file_and_every_sequence_frees_the_rest(user: Any) -> None:
    Keeping.user = user
    run_state_machine_as_test(
        Keeping,
        settings=effort(
            max_examples=30, stateful_step_count=20, deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip


# --- garbage


def test_grace_is_counted_from_when_it_was_first_seen(store: Path) -> None:
    write(store / "checkpoints" / "left", {"x": b"abc"})
    os.utime(store / "checkpoints" / "left", (0, 0))  # an old time on the disk says nothing
    start = timezone.now()
    assert garbage.collect(grace=HOUR, now=start) == []
    assert garbage.collect(grace=HOUR, now=start + 0.9 * HOUR) == []
    (found,) = garbage.collect(grace=HOUR, now=start + HOUR)
    assert (found.path, found.size_bytes) == ("checkpoints/left", 3)
    assert not (store / "checkpoints" / "left").exists()


def test_what_is_referred_to_again_meanwhile_begins_anew(user: Any, store: Path) -> None:
    one = register(user, "one")
    path = store / one.path
    Checkpoint.objects.all().delete()
    start = timezone.now()
    garbage.collect(grace=HOUR, now=start)
    two = register(user, "two")
    assert two.path == one.path
    assert garbage.collect(grace=HOUR, now=start + 0.5 * HOUR) == []
    Checkpoint.objects.all().delete()
    assert garbage.collect(grace=HOUR, now=start + 1.2 * HOUR) == []
    assert path.is_dir()
    assert garbage.collect(grace=HOUR, now=start + 2.2 * HOUR)
    assert not path.exists()


def test_a_checkpoint_that_comes_back_at_the_last_moment_keeps_its_files(
    user: Any, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = register(user, "one")
    Checkpoint.objects.all().delete()
    listed = garbage.unreferenced

    def then_comes_back() -> Any:
        found = list(listed())
        register(user, "two")
        return found

    monkeypatch.setattr(garbage, "unreferenced", then_comes_back)
    assert garbage.collect(grace=0 * HOUR) == []
    assert (store / one.path / "config.json").exists()


def test_what_is_not_known_here_is_left_alone(store: Path) -> None:
    write(store / "somebody-elses", {"x": b"abc"})
    write(store, {"loose": b"abc"})
    garbage.collect(grace=0 * HOUR)
    garbage.collect(grace=0 * HOUR)
    assert (store / "somebody-elses" / "x").exists()
    assert (store / "loose").exists()


def test_what_a_dead_collector_left_is_removed(store: Path) -> None:
    write(store / ".trash" / "half.0", {"x": b"abc"})
    garbage.collect()
    assert not list((store / ".trash").iterdir())


def test_chats_and_reports_that_rows_name_are_kept(user: Any, store: Path) -> None:
    problems = samples.arithmetic(2)
    measured = samples.make_evaluation(
        user, register(user, "m"), samples.make_benchmark(problems), problems, samples=1
    )
    named = f"chats/{'a' * 64}.jsonl"
    samples.make_run(user, "mixed", Run.Kind.DISTILLATION,
                     config={"corpus": {"general": [{"path": named}]}})  # fmt: skip
    Report.objects.create(evaluation=measured, form="pdf", state="ready", owner=user,
                          path="reports/7/report.pdf")  # fmt: skip
    write(store, {named: b"{}", f"chats/{'b' * 64}.jsonl": b"{}", "reports/7/report.pdf": b"x",
                  "reports/7/old.pdf": b"x", "reports/8/report.pdf": b"x"})  # fmt: skip
    garbage.collect(grace=0 * HOUR)
    assert [path.name for path in (store / "chats").iterdir()] == [f"{'a' * 64}.jsonl"]
    assert [path.name for path in (store / "reports").glob("*/*")] == ["report.pdf"]


def test_a_link_is_removed_and_not_what_it_points_to(store: Path, tmp_path: Path) -> None:
    kept = write(tmp_path / "kept", {"x": b"abc"})
    (store / "checkpoints").mkdir(parents=True)
    (store / "checkpoints" / "link").symlink_to(kept)
    garbage.collect(grace=0 * HOUR)
    assert not os.path.lexists(store / "checkpoints" / "link")
    assert (kept / "x").exists()


def test_the_command_names_what_it_would_remove_and_then_removes_it(store: Path) -> None:
    write(store / "runs" / "77", {"x": b"abc"})
    dry, wet = StringIO(), StringIO()
    call_command("collect_garbage", dry_run=True, stdout=dry)
    assert dry.getvalue().splitlines() == ["runs/77\t3", "1 unreferenced, nothing removed, 3 bytes"]
    assert (store / "runs" / "77").exists()
    assert not Unreferenced.objects.exists()
    call_command("collect_garbage", grace_hours=0.0, stdout=wet)
    assert wet.getvalue().splitlines()[-1] == "1 removed, 3 bytes"
    assert not (store / "runs" / "77").exists()


# --- deleting


@pytest.fixture
def measured(user: Any) -> Evaluation:
    problems = samples.arithmetic(3)
    checkpoint = register(user, "measured")
    return samples.make_evaluation(
        user, checkpoint, samples.make_benchmark(problems), problems, samples=2
    )


def test_what_hangs_on_a_checkpoint_is_named_first(user: Any, measured: Evaluation) -> None:
    checkpoint = measured.checkpoint
    assert checkpoint is not None
    student = register(user, "student", 1)
    Checkpoint.objects.filter(pk=student.pk).update(parent=checkpoint)
    distillation = samples.make_run(user, "distil", Run.Kind.DISTILLATION)
    samples.make_stage(distillation, 0, "train", "Train", config={"base": checkpoint.pk})
    found = removal.dependents_of_checkpoint(checkpoint, by=user)
    assert not found.blocked
    assert found.freed_bytes == checkpoint.size_bytes
    named = {group.sentence.split(",")[0]: [str(each) for each in group.first] for group in
             found.groups}  # fmt: skip
    assert named == {
        "Evaluations of it": [str(measured)],
        "Runs that did nothing else": [measured.run.name],
        "Runs that used it": ["distil"],
        "Students of it": ["student"],
    }
    removal.delete_checkpoint(checkpoint, by=user)
    assert not Evaluation.objects.exists()
    assert list(Run.objects.all()) == [distillation]
    assert not files.store_path(f"runs/{measured.run_id}").exists()
    assert not files.store_path(checkpoint.path).exists()
    student.refresh_from_db()
    assert student.parent is None


@pytest.mark.parametrize("kind", Run.Kind.values)
def test_nobody_but_staff_deletes_what_others_measured(user: Any, kind: Run.Kind) -> None:
    users = type(user).objects
    other, staff = users.create_user("bob"), users.create_user("sam", is_staff=True)
    problems = samples.arithmetic(3)
    benchmark = samples.make_benchmark(problems)
    checkpoint = register(user, "base")
    samples.make_evaluation(user, checkpoint, benchmark, problems, samples=2)
    run = samples.make_run(other, "bob's", kind)
    kept = samples.make_evaluation(other, checkpoint, benchmark, problems, samples=2, run=run)

    def there() -> tuple[int, ...]:
        of_bob = (kept.completions.count(), run.stages.count())
        return (*of_bob, Evaluation.objects.count(), Run.objects.count())

    before = there()
    found = removal.dependents_of_checkpoint(checkpoint, by=user)
    assert [each for group in found.others for each in group.first] == [kept]
    with pytest.raises(UserError, match="Others measured it"):
        removal.delete_checkpoint(checkpoint, by=user)
    removal.set_archived(checkpoint, archived=True)
    removal.release_files(checkpoint, by=user)
    assert not files.store_path(checkpoint.path).exists()
    assert there() == before
    removal.delete_checkpoint(checkpoint, by=staff)
    assert not Evaluation.objects.exists()


def test_an_unfinished_run_blocks(user: Any) -> None:
    checkpoint = register(user, "used")
    run = samples.make_run(user, "run", Run.Kind.DISTILLATION, State.RUNNING)
    samples.make_stage(run, 0, "generate", "Draw", state=State.RUNNING,
                       config={"teacher": checkpoint.pk})  # fmt: skip
    for act in (
        partial(removal.delete_checkpoint, by=user),
        partial(removal.release_files, by=user),
    ):
        with pytest.raises(UserError, match="unfinished run uses it"):
            act(checkpoint)
    with pytest.raises(UserError, match="not finished"):
        removal.delete_run(run, by=user)
    with pytest.raises(UserError, match="not finished"):
        removal.set_archived(run, archived=True)
    assert files.store_path(checkpoint.path).is_dir()


def test_shared_files_go_with_their_last_name(user: Any) -> None:
    one, two = register(user, "one"), register(user, "two")
    assert one.path == two.path
    assert removal.dependents_of_checkpoint(one, by=user).freed_bytes == 0
    removal.delete_checkpoint(one, by=user)
    assert files.store_path(two.path).is_dir()
    removal.delete_checkpoint(two, by=user)
    assert not files.store_path(two.path).exists()


def test_files_can_go_alone_and_the_scores_stay(measured: Evaluation) -> None:
    checkpoint = measured.checkpoint
    assert checkpoint is not None
    removal.release_files(checkpoint, by=measured.run.owner)
    assert not files.store_path(checkpoint.path).exists()
    checkpoint.refresh_from_db()
    assert not checkpoint.has_files
    assert checkpoint.content_hash
    assert Evaluation.objects.get().pass_at_1 == measured.pass_at_1
    with pytest.raises(UserError, match="no files"):
        removal.release_files(checkpoint, by=measured.run.owner)


def test_a_deleted_run_takes_its_evaluations_and_files(measured: Evaluation) -> None:
    run = measured.run
    folder = files.store_path(f"runs/{run.pk}")
    assert folder.is_dir()
    assert removal.dependents_of_run(run, by=run.owner).freed_bytes > 0
    removal.delete_run(run, by=run.owner)
    assert not folder.exists()
    assert not Evaluation.objects.exists()
    assert Checkpoint.objects.exists()


# --- retention


def test_abandoned_uploads_are_forgotten_and_live_ones_not(user: Any, settings: Any) -> None:
    settings.RETORT_KEEP_UPLOAD_DAYS = 7
    old, new = uploads.begin(user, "old"), uploads.begin(user, "new")
    checked = uploads.begin(user, "checked")
    for upload in (old, new, checked):
        write(uploads.folder_of(upload.pk), {"x": b"abc"})
    long_ago = timezone.now() - timedelta(days=8)
    Upload.objects.exclude(pk=new.pk).update(touched_at=long_ago)
    Upload.objects.filter(pk=checked.pk).update(state=Upload.State.CHECKING)
    assert retention.abandon_uploads() == 1
    assert {upload.name for upload in Upload.objects.all()} == {"new", "checked"}
    assert not uploads.folder_of(old.pk).exists()
    settings.RETORT_KEEP_UPLOAD_DAYS = 0
    Upload.objects.update(touched_at=long_ago, state=Upload.State.RECEIVING)
    assert retention.abandon_uploads() == 0


def test_where_a_checkpoint_came_from_is_kept_as_long_as_it_is(user: Any, settings: Any) -> None:
    settings.RETORT_KEEP_UPLOAD_DAYS = 7
    checkpoint = samples.make_checkpoint(user, "fetched")
    upload = Upload.objects.create(
        project=first_project(),
        owner=user, name="fetched", source=Upload.Source.HUB, origin="org/tiny", revision="c0ffee",
        state=Upload.State.REGISTERED, checkpoint=checkpoint,
    )  # fmt: skip
    later = timezone.now() + timedelta(days=400)
    assert retention.abandon_uploads(later) == 0
    (source,) = (
        node
        for node in graph_of_checkpoint(checkpoint, samples.everything()).nodes.values()
        if node.role == "the hub"
    )
    assert (source.name, source.note) == ("org/tiny", "c0ffee")
    checkpoint.delete()
    assert retention.abandon_uploads(later) == 1
    assert not Upload.objects.filter(pk=upload.pk).exists()


def test_working_files_go_and_what_counts_stays(
    user: Any, measured: Evaluation, settings: Any
) -> None:
    settings.RETORT_KEEP_WORK_DAYS = 30
    stage = measured.run.stages.get(kind="evaluate")
    accepted = set(files.accepted_segments(stage))
    folder = files.stage_folder(stage)
    kept, lost, counted = uuid.uuid4().hex, uuid.uuid4().hex, uuid.uuid4().hex
    for name in (kept, lost, counted, "resume", "unknown"):
        write(folder / name, {"x": b"abc"})
    write(folder / "segments", {"00000001-stale-000.jsonl.zst": b"abc"})
    write(folder, {"spec.json": b"{}", ".spec-1.json": b"{}", "preflight.json": b"{}"})
    Stage.objects.filter(pk=stage.pk).update(
        result={"corpus": f"runs/1/2/{kept}/corpus"}, log_tail="lines"
    )
    Shard.objects.create(stage=stage, index=99, result={"part": counted}, state=State.FINISHED)
    now = timezone.now()
    assert retention.drop_working_files(now + timedelta(days=29)) == 0
    assert retention.drop_working_files(now + timedelta(days=31)) > 0
    assert set(files.accepted_segments(stage)) == accepted
    assert all(path.exists() for path in accepted)
    assert {path.name for path in folder.iterdir()} == {
        kept, counted, "unknown", "segments", "spec.json", "preflight.json"
    }  # fmt: skip
    assert set((folder / "segments").iterdir()) == accepted
    stage.refresh_from_db()
    assert stage.log_tail == ""
    assert TidiedStage.objects.filter(stage=stage).exists()
    # A run that goes on and ends again is looked at again.
    write(folder / "resume", {"x": b"abc"})
    later = now + timedelta(days=100)
    assert retention.drop_working_files(later) == 0
    Run.objects.update(finished_at=later)
    assert retention.drop_working_files(later + timedelta(days=31)) == 3


def test_a_run_that_is_not_over_keeps_everything(user: Any, settings: Any) -> None:
    settings.RETORT_KEEP_WORK_DAYS = 1
    run = samples.make_run(user, "run", Run.Kind.DISTILLATION, State.RUNNING)
    stage = samples.make_stage(run, 0, "train", "Train", state=State.RUNNING)
    write(files.stage_folder(stage) / "resume", {"x": b"abc"})
    assert retention.drop_working_files(timezone.now() + timedelta(days=999)) == 0
    assert (files.stage_folder(stage) / "resume" / "x").exists()

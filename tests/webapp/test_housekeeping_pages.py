"""What people see of storage, archiving and deleting, and who may do what."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from distiller.checkpoints import inspect
from tests.distiller.samples import recipe
from tests.webapp import samples
from tests.webapp.models import model_files, write
from tests.webapp.test_projects import client_of
from webapp.checkpoints import queries, services
from webapp.checkpoints.models import Checkpoint
from webapp.runs import files
from webapp.runs.models import Evaluation, Run, State

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def store(settings: Any, tmp_path: Path) -> Path:
    settings.MEDIA_ROOT = tmp_path / "files"
    return tmp_path / "files"


@pytest.fixture
def stranger(django_user_model: Any) -> Client:
    return client_of(django_user_model.objects.create_user("stranger"))


@pytest.fixture
def checkpoint(user: Any, tmp_path: Path) -> Checkpoint:
    return services.register_folder(
        owner=user, name="org/mine", folder=write(tmp_path / "made", model_files())
    )


@pytest.fixture
def evaluation(user: Any, checkpoint: Checkpoint) -> Evaluation:
    problems = samples.arithmetic(3)
    return samples.make_evaluation(
        user, checkpoint, samples.make_benchmark(problems), problems, samples=2
    )


def text_of(answer: Any) -> str:
    return str(answer.content.decode().replace("\xa0", " "))


def test_what_hangs_on_it_stands_on_the_page_before_it_goes(
    page: Client, checkpoint: Checkpoint, evaluation: Evaluation
) -> None:
    address = reverse("housekeeping:checkpoint", args=[checkpoint.pk])
    text = text_of(page.get(address))
    assert "Evaluations of it, with their scores and completions: 1" in text
    assert evaluation.get_absolute_url() in text
    assert Checkpoint.objects.exists()
    done = page.post(address, {"act": "delete"})
    assert done["Location"] == reverse("checkpoints:index")
    assert not Checkpoint.objects.exists()
    assert not Evaluation.objects.exists()


def test_a_block_is_named_and_holds(page: Client, user: Any, checkpoint: Checkpoint) -> None:
    run = samples.make_run(user, "busy run", Run.Kind.DISTILLATION, State.RUNNING)
    samples.make_stage(
        run, 0, "train", "Train", state=State.RUNNING, config={"base": checkpoint.pk}
    )
    address = reverse("housekeeping:checkpoint", args=[checkpoint.pk])
    text = text_of(page.get(address))
    assert "cancel the run first" in text
    assert "busy run" in text
    assert 'value="delete"' not in text
    page.post(address, {"act": "delete"})
    assert Checkpoint.objects.filter(pk=checkpoint.pk).exists()


def test_what_others_measured_loses_its_files_only(
    page: Client, checkpoint: Checkpoint, evaluation: Evaluation, django_user_model: Any
) -> None:
    Run.objects.update(owner=django_user_model.objects.create_user("bob"))
    address = reverse("housekeeping:checkpoint", args=[checkpoint.pk])
    text = text_of(page.get(address))
    assert "Others measured it" in text
    assert evaluation.get_absolute_url() in text
    assert 'value="delete"' not in text
    assert 'value="release"' in text
    assert "Others measured it" in text_of(page.post(address, {"act": "delete"}, follow=True))
    page.post(address, {"act": "release"})
    checkpoint.refresh_from_db()
    assert not checkpoint.has_files
    assert Evaluation.objects.filter(pk=evaluation.pk).exists()


def test_only_owners_and_administrators_decide(
    stranger: Client, admin: Any, checkpoint: Checkpoint, evaluation: Evaluation
) -> None:
    run = evaluation.run
    for address in (
        reverse("housekeeping:checkpoint", args=[checkpoint.pk]),
        reverse("housekeeping:run", args=[run.pk]),
        reverse("checkpoints:edit", args=[checkpoint.pk]),
    ):
        assert stranger.get(address).status_code == 403
        assert stranger.post(address, {"act": "delete"}).status_code == 403
        assert client_of(admin).get(address).status_code == 200
    assert "Archive or delete" not in text_of(stranger.get(checkpoint.get_absolute_url()))
    assert stranger.get(reverse("housekeeping:disk")).status_code == 403


def test_archived_things_leave_lists_and_forms_and_keep_their_figures(
    page: Client, checkpoint: Checkpoint, evaluation: Evaluation
) -> None:
    for name, thing in (("checkpoint", checkpoint), ("run", evaluation.run)):
        address = reverse(f"housekeeping:{name}", args=[thing.pk])
        page.post(address, {"act": "archive"})
    for name in ("checkpoints", "runs"):
        listing = reverse(f"{name}:index")
        assert checkpoint.get_absolute_url() + '"' not in text_of(page.get(listing))
        assert f'href="{evaluation.run.get_absolute_url()}"' not in text_of(page.get(listing))
    assert checkpoint.name in text_of(page.get(reverse("checkpoints:index") + "?archived"))
    assert evaluation.run.name in text_of(page.get(reverse("runs:index") + "?archived=on"))
    assert not queries.runnable().exists()
    assert not queries.with_files().exists()
    assert "lists and forms leave it out" in text_of(page.get(checkpoint.get_absolute_url()))
    assert page.get(evaluation.get_absolute_url()).status_code == 200
    for name, thing in (("checkpoint", checkpoint), ("run", evaluation.run)):
        page.post(reverse(f"housekeeping:{name}", args=[thing.pk]), {"act": "restore"})
    assert list(queries.runnable()) == [checkpoint]
    assert evaluation.run.name in text_of(page.get(reverse("runs:index")))


def test_storage_says_what_is_taken(
    page: Client, admin: Any, user: Any, checkpoint: Checkpoint, evaluation: Evaluation
) -> None:
    write(files.store_path("checkpoints/left-behind"), {"x": bytes(2048)})
    text = text_of(page.get(reverse("housekeeping:index")))
    assert "5.2 KB" in text  # the checkpoint's own size
    assert "The whole disk" not in text
    assert "Uploads that get no bytes for 7 days" in text
    disk = text_of(client_of(admin).get(reverse("housekeeping:disk")))
    assert "2.0 KB" in disk
    assert "runs" in disk


def test_the_storage_page_asks_the_database_little(
    page: Client, user: Any, checkpoint: Checkpoint, django_assert_max_num_queries: Any
) -> None:
    for number in range(30):
        samples.make_checkpoint(user, f"c{number}")
    with django_assert_max_num_queries(12):
        page.get(reverse("housekeeping:index"))


# --- the checkpoint's own pages


def test_tags_and_licences_are_kept_and_filter(page: Client, checkpoint: Checkpoint) -> None:
    address = reverse("checkpoints:edit", args=[checkpoint.pk])
    given = {"tags": "Small, maths small", "licence": "apache-2.0", "notes": "mine"}
    assert page.post(address, given)["Location"] == checkpoint.get_absolute_url()
    checkpoint.refresh_from_db()
    assert checkpoint.tags == ["small", "maths"]
    assert checkpoint.licence == "apache-2.0"
    assert "org/mine" in text_of(page.get(reverse("checkpoints:index") + "?tag=maths"))
    assert "org/mine" not in text_of(page.get(reverse("checkpoints:index") + "?tag=none"))
    for bad in ({"tags": "a<b"}, {"tags": "x" * 41}, {"licence": "<script>"}):
        assert page.post(address, bad).status_code == 400
    checkpoint.refresh_from_db()
    assert checkpoint.tags == ["small", "maths"]


def test_a_checkpoint_is_downloaded_whole(
    page: Client, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    answer = page.get(reverse("checkpoints:tar", args=[checkpoint.pk]))
    data = b"".join(answer.streaming_content)  # type: ignore[attr-defined]
    assert len(data) == int(answer["Content-Length"])
    assert 'filename="org--mine.tar"' in answer["Content-Disposition"]
    with tarfile.open(fileobj=io.BytesIO(data)) as packed:
        packed.extractall(tmp_path / "out", filter="data")
    assert inspect(tmp_path / "out" / "org--mine").content_hash == checkpoint.content_hash


def test_a_student_has_a_card_and_others_have_none(
    page: Client, user: Any, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    assert page.get(reverse("checkpoints:card", args=[checkpoint.pk])).status_code == 302
    run = samples.make_run(
        user, "run", "distillation", config=recipe("org/mine").model_dump(mode="json")
    )
    samples.make_stage(run, 0, "generate", "Draw", config={"base": checkpoint.pk})
    Checkpoint.objects.filter(pk=checkpoint.pk).update(licence="mit")
    files_ = model_files() | {"notes.txt": b"a student"}
    student = services.register_folder(
        owner=user, name="student", folder=write(tmp_path / "s", files_), produced_by=run
    )
    Checkpoint.objects.filter(pk=student.pk).update(prompts_licence="cc-by-4.0")
    address = reverse("checkpoints:card", args=[student.pk])
    text = page.get(address + "?download").content.decode()
    assert text.startswith("---\n")
    assert "- the base: mit" in text
    assert "- these weights: not stated" in text
    assert "- the prompts: cc-by-4.0" in text
    assert student.content_hash in text_of(page.get(address))
    data = b"".join(page.get(reverse("checkpoints:tar", args=[student.pk])).streaming_content)  # type: ignore[attr-defined]
    with tarfile.open(fileobj=io.BytesIO(data)) as packed:
        member = packed.extractfile("student/README.md")
        assert member is not None
        assert member.read().decode() == text


def test_files_that_are_gone_are_not_offered(page: Client, checkpoint: Checkpoint) -> None:
    Checkpoint.objects.filter(pk=checkpoint.pk).update(path="")
    assert page.get(reverse("checkpoints:tar", args=[checkpoint.pk])).status_code == 302
    assert "Download as tar" not in text_of(page.get(checkpoint.get_absolute_url()))

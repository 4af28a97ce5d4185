"""Checkpoints, uploads, endpoints and benchmarks: what lies in a foreign project does not exist."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse

from tests.distiller.samples import recipe
from tests.webapp import samples
from webapp.benchmarks.models import Benchmark
from webapp.checkpoints import services, uploads
from webapp.checkpoints.models import Checkpoint, Upload
from webapp.core.errors import UserError
from webapp.endpoints import services as endpoints
from webapp.endpoints.models import Endpoint
from webapp.housekeeping import removal
from webapp.projects.access import ELSEWHERE, first_project
from webapp.projects.models import Membership, Project, Role
from webapp.runs.models import Run, State

pytestmark = pytest.mark.django_db

SECRET = "stillsecret"  # in every name of the foreign project


@dataclass(frozen=True)
class Scene:
    """``user`` works in the first project, ``viewer`` looks at it; ``other`` has one alone."""

    user: Any
    viewer: Any
    other: Any
    foreign: Project
    ours: Checkpoint
    theirs: Checkpoint
    served: Endpoint
    benchmark: Benchmark


@pytest.fixture
def scene(user: Any) -> Scene:
    make = get_user_model().objects.create_user
    viewer, other = make("vera", password="x"), make("otto", password="x")
    Membership.objects.filter(user=viewer).update(role=Role.VIEWER)
    Membership.objects.filter(user=other).delete()
    foreign = samples.make_project(f"{SECRET}-project", {other: Role.ADMIN})
    theirs = samples.make_checkpoint(
        other, f"{SECRET}-model", project=foreign, tags=[SECRET], notes=SECRET
    )
    run = samples.make_run(
        other, f"{SECRET}-run", Run.Kind.DISTILLATION, project=foreign,
        config=recipe("base").model_dump(mode="json"),
    )  # fmt: skip
    ours = samples.make_checkpoint(user, "ours", parent=theirs, produced_by=run)
    samples.make_checkpoint(other, f"{SECRET}-child", project=foreign, parent=ours)
    served = endpoints.register(
        owner=other, project=foreign, name=f"{SECRET}-served", base_url="http://h/v1", model="m"
    )
    problems = samples.arithmetic(3)
    benchmark = samples.make_benchmark(problems)
    samples.make_evaluation(user, ours, benchmark, problems, samples=1)
    for checkpoint in (ours, theirs):  # measured by the foreign project, too
        away = samples.make_run(other, f"{SECRET}-e", Run.Kind.EVALUATION, project=foreign)
        samples.make_evaluation(other, checkpoint, benchmark, problems, samples=1, run=away)
    return Scene(user, viewer, other, foreign, ours, theirs, served, benchmark)


def page_of(person: Any) -> Client:
    client = Client()
    client.force_login(person)
    return client


ADDRESSES = {
    "checkpoints:detail": "theirs", "checkpoints:edit": "theirs", "checkpoints:card": "theirs",
    "checkpoints:tar": "theirs", "housekeeping:checkpoint": "theirs",
    "endpoints:detail": "served", "endpoints:test": "served", "endpoints:delete": "served",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(ADDRESSES))
@pytest.mark.parametrize("method", ["get", "post"])
def test_what_lies_in_a_foreign_project_does_not_exist(
    scene: Scene, name: str, method: str
) -> None:
    address = reverse(name, args=[getattr(scene, ADDRESSES[name]).pk])
    answers = {
        getattr(page_of(person), method)(address, {"act": "delete"}).status_code
        for person in (scene.user, scene.viewer)
    }
    assert Checkpoint.objects.filter(pk=scene.theirs.pk).exists()
    assert Endpoint.objects.filter(pk=scene.served.pk).exists()
    wrong_method = getattr(page_of(scene.other), method)(address).status_code == 405
    assert answers == ({405} if wrong_method else {404})


def test_the_lineage_of_a_foreign_run_does_not_exist(scene: Scene) -> None:
    run = scene.ours.produced_by
    assert run is not None
    address = reverse("checkpoints:run-lineage", args=[run.pk])
    assert page_of(scene.user).get(address).status_code == 404
    assert page_of(scene.other).get(address).status_code == 200


PAGES = [
    "checkpoints:index", "endpoints:index", "benchmarks:index", "housekeeping:index",
    "checkpoints:upload",
]  # fmt: skip


@pytest.mark.parametrize("name", PAGES)
def test_lists_tags_and_counts_say_nothing_of_it(scene: Scene, name: str) -> None:
    uploads.begin(scene.other, f"{SECRET}-upload", [], scene.foreign)
    Checkpoint.objects.filter(name=f"{SECRET}-child").update(archived_at="2026-01-01T00:00Z")
    for query in ("", "?archived", f"?tag={SECRET}"):
        text = samples.text_of(page_of(scene.user).get(reverse(name) + query))
        assert SECRET not in text.replace(f"tagged {SECRET}", "")  # what was asked for
        assert "archived (" not in text
    assert SECRET in samples.text_of(page_of(scene.other).get(reverse("checkpoints:index")))


def test_a_page_names_nothing_foreign_and_says_that_it_is_there(scene: Scene) -> None:
    text = samples.text_of(page_of(scene.user).get(scene.ours.get_absolute_url()))
    assert SECRET not in text
    assert scene.theirs.get_absolute_url() not in text
    assert text.count(ELSEWHERE) >= 3  # parent, run and child
    assert len(re.findall(r"/evaluations/\d+/\"", text)) > 0
    # Whose run measured it in the foreign project sees that evaluation, and no other.
    Membership.objects.create(project=first_project(), user=scene.other, role=Role.VIEWER)
    both = samples.text_of(page_of(scene.other).get(scene.ours.get_absolute_url()))
    assert SECRET in both
    assert ELSEWHERE not in both


def test_counts_are_of_what_one_sees(scene: Scene) -> None:
    def counted(person: Any, address: str) -> list[str]:
        text = samples.text_of(page_of(person).get(reverse(address)))
        return re.findall(r'data-label="evaluations">(\d+)<', text)

    assert counted(scene.user, "checkpoints:index") == ["1"]
    assert counted(scene.user, "benchmarks:index") == ["1"]
    assert counted(scene.other, "benchmarks:index") == ["2"]
    assert sorted(counted(scene.other, "checkpoints:index")) == ["0", "0", "1"]


def test_the_card_of_a_student_names_no_foreign_teacher(scene: Scene) -> None:
    run = samples.make_run(
        scene.user, "r", Run.Kind.DISTILLATION,
        config=recipe("base", teacher=f"{SECRET}-model").model_dump(mode="json"),
    )  # fmt: skip
    samples.make_stage(run, 0, "generate", "Draw", config={"teacher": scene.theirs.pk})
    student = samples.make_checkpoint(scene.user, "student", produced_by=run)
    page = page_of(scene.viewer)
    card = samples.text_of(page.get(reverse("checkpoints:card", args=[student.pk])))
    assert SECRET not in card
    assert scene.theirs.content_hash not in card
    assert ELSEWHERE in card
    graph = samples.text_of(page.get(reverse("checkpoints:run-lineage", args=[run.pk])))
    assert SECRET not in graph
    assert ELSEWHERE in graph


def test_a_file_that_names_parents_finds_no_foreign_hash(
    scene: Scene, settings: Any, tmp_path: Any
) -> None:
    settings.MEDIA_ROOT = tmp_path
    folder = tmp_path / "checkpoints/x"
    folder.mkdir(parents=True)
    digest = scene.theirs.content_hash
    note = f'{{"parents": [{{"name": "guess", "content_hash": "{digest}"}}]}}'
    (folder / "merge.json").write_text(note)
    probe = samples.make_checkpoint(scene.user, "probe", path="checkpoints/x")
    text = samples.text_of(page_of(scene.user).get(probe.get_absolute_url()))
    assert "not here" in text
    assert ELSEWHERE not in text


def test_a_viewer_looks_and_adds_nothing(scene: Scene) -> None:
    page = page_of(scene.viewer)
    forms = ("checkpoints:upload", "checkpoints:hub", "endpoints:register")
    for name in forms:
        for answer in (page.get(reverse(name)), page.post(reverse(name), {})):
            assert answer.status_code == 403
            assert "operator" in answer.content.decode()
    assert page.post(reverse("checkpoints:begin"), {"name": "x"}).status_code == 403
    seen = [page.get(reverse(name)) for name in ("checkpoints:index", "endpoints:index")]
    seen += [page.get(scene.ours.get_absolute_url())]
    seen += [page.get(reverse("benchmarks:detail", args=[scene.benchmark.pk]))]
    for text in map(samples.text_of, seen):
        for name in (*forms, "runs:evaluate", "runs:distil"):
            assert f'"{reverse(name)}' not in text
    for name in ("checkpoints:edit", "housekeeping:checkpoint"):
        assert page.get(reverse(name, args=[scene.ours.pk])).status_code == 403
    assert not Upload.objects.exists()


def test_a_viewer_sees_an_endpoint_and_changes_nothing_of_it(scene: Scene) -> None:
    Membership.objects.create(project=scene.foreign, user=scene.viewer, role=Role.VIEWER)
    page = page_of(scene.viewer)
    text = samples.text_of(page.get(scene.served.get_absolute_url()))
    assert "Delete" not in text
    assert page.post(scene.served.get_absolute_url(), {"concurrency": 1}).status_code == 403
    for name in ("endpoints:test", "endpoints:delete"):
        assert page.post(reverse(name, args=[scene.served.pk])).status_code == 403


# --- uploads


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR, Role.ADMIN, None])
def test_an_upload_is_its_owners_and_admins_may_discard_it(scene: Scene, role: Role | None) -> None:
    upload = uploads.begin(scene.user, "model", [("config.json", 3), ("a.safetensors", 9)])
    if role:
        Membership.objects.create(project=first_project(), user=scene.other, role=role)
    page, address = page_of(scene.other), upload.get_absolute_url()
    visible = 200 if role == Role.ADMIN else 404
    assert page.get(address).status_code == visible
    file = upload.files.all()[0]
    for name, args in (("tus-file", [upload.pk, file.pk]), ("finish", [upload.pk])):
        answer = page.post(
            reverse(f"checkpoints:{name}", args=args), headers={"Tus-Resumable": "1.0.0"}
        )
        assert answer.status_code in (404, 405)
    head = page.head(
        reverse("checkpoints:tus-file", args=[upload.pk, file.pk]),
        headers={"Tus-Resumable": "1.0.0"},
    )
    assert head.status_code == 404
    if role == Role.ADMIN:
        text = samples.text_of(page.get(address))
        assert "data-upload" not in text
        assert "ada sends it" in text
        listed = samples.text_of(page.get(reverse("checkpoints:upload")))
        assert address in listed
    gone = page.post(reverse("checkpoints:discard", args=[upload.pk]))
    assert gone.status_code == (302 if role == Role.ADMIN else 404)
    assert Upload.objects.exists() == (role != Role.ADMIN)


def test_who_works_no_longer_in_a_project_sends_nothing_more_there(scene: Scene) -> None:
    upload = uploads.begin(scene.user, "model", [("config.json", 3), ("a.safetensors", 9)])
    file = upload.files.all()[0]
    page = page_of(scene.user)
    address = reverse("checkpoints:tus-file", args=[upload.pk, file.pk])
    assert page.head(address, headers={"Tus-Resumable": "1.0.0"}).status_code == 200
    Membership.objects.filter(user=scene.user).update(role=Role.VIEWER)
    assert page.head(address, headers={"Tus-Resumable": "1.0.0"}).status_code == 404
    assert page.get(upload.get_absolute_url()).status_code == 404


# --- where new things go


def test_only_who_works_in_several_projects_is_asked_for_one(scene: Scene) -> None:
    page = page_of(scene.user)
    names = ("checkpoints:upload", "checkpoints:hub", "endpoints:register")
    for name in names:
        assert 'name="project"' not in samples.text_of(page.get(reverse(name)))
    second = samples.make_project("second", {scene.user: Role.OPERATOR})
    for name in names:
        text = samples.text_of(page.get(reverse(name)))
        assert f'value="{second.pk}"' in text
        assert SECRET not in text
    endpoint = {"name": "e", "base_url": "http://h/v1", "model": "m", "concurrency": 1}
    hub = {"repository": "a/b"}
    refused = page.post(reverse("endpoints:register"), endpoint | {"project": scene.foreign.pk})
    assert refused.status_code == 400
    assert not Checkpoint.objects.filter(name="e").exists()
    page.post(reverse("endpoints:register"), endpoint | {"project": second.pk})
    page.post(reverse("checkpoints:hub"), hub | {"project": second.pk})
    page.post(reverse("checkpoints:begin"), {"name": "c", "project": second.pk})
    assert Checkpoint.objects.get(name="e").project == second
    assert {each.project for each in Upload.objects.all()} == {second}
    for each in Upload.objects.all():
        assert "Project: second" in samples.text_of(page.get(each.get_absolute_url()))
    begun = page.post(reverse("checkpoints:begin"), {"name": "d", "project": scene.foreign.pk})
    assert begun.json()["errors"]["project"][0].startswith("Project: ")
    assert page.post(reverse("checkpoints:begin"), {"name": "d", "project": "x"}).status_code == 400


# --- names


def test_the_refusal_of_a_name_tells_nothing_but_that_it_is_taken(scene: Scene) -> None:
    uploads.begin(scene.other, f"{SECRET}-upload", [], scene.foreign)
    known = samples.make_checkpoint(scene.user, "mine")
    taken = [scene.theirs.name, f"{SECRET}-served", f"{SECRET}-upload", known.name]
    told = set()
    for name in taken:
        with pytest.raises(UserError) as refused:
            services.check_name(name)
        told.add(refused.value.sentence.replace(repr(name), "NAME"))
    for name in taken[:2]:  # under which a stranger would put completions made elsewhere
        with pytest.raises(UserError) as refused:
            services.completions_only(owner=scene.user, project=first_project(), name=name)
        told.add(refused.value.sentence.replace(repr(name), "NAME").replace("checkpoint:", "name:"))
    assert told == {"name: NAME is taken in this installation; choose another."}


def test_completions_go_under_no_name_of_another_project(scene: Scene, admin: Any) -> None:
    second = samples.make_project("second", {scene.user: Role.OPERATOR})
    services.completions_only(owner=scene.user, project=second, name="elsewhere")
    for person in (scene.user, admin):
        with pytest.raises(UserError, match="lies in the project 'second'"):
            services.completions_only(owner=person, project=first_project(), name="elsewhere")
    Project.objects.filter(pk=second.pk).update(open=True)
    services.completions_only(owner=scene.user, project=first_project(), name="elsewhere")


# --- removal


def test_foreign_dependents_are_counted_and_not_named(scene: Scene) -> None:
    address = reverse("housekeeping:checkpoint", args=[scene.ours.pk])
    page = page_of(scene.user)
    text = samples.text_of(page.get(address))
    assert SECRET not in text
    assert "1 in projects that you are not in" in text
    page.post(address, {"act": "delete"})
    assert Checkpoint.objects.filter(pk=scene.ours.pk).exists()  # a foreign run measured it
    found = removal.dependents_of_checkpoint(scene.ours, by=scene.user)
    assert [(group.count, group.elsewhere, group.more) for group in found.others] == [(1, 1, 0)]


def test_an_admin_of_both_projects_deletes_with_their_scores(scene: Scene) -> None:
    Membership.objects.create(project=first_project(), user=scene.other, role=Role.ADMIN)
    removal.delete_checkpoint(scene.ours, by=scene.other)
    assert not Checkpoint.objects.filter(pk=scene.ours.pk).exists()


def test_an_endpoint_in_use_by_foreign_runs_names_none(scene: Scene) -> None:
    Membership.objects.create(project=scene.foreign, user=scene.user, role=Role.ADMIN)
    hidden = samples.make_project("hidden", {scene.other: Role.ADMIN})
    run = samples.make_run(
        scene.other, "hidden run", Run.Kind.EVALUATION, State.RUNNING, project=hidden
    )
    samples.make_stage(
        run, 0, "evaluate", "E", state=State.RUNNING, config={"endpoint": scene.served.pk}
    )
    with pytest.raises(UserError) as refused:
        endpoints.delete(scene.served, by=scene.user)
    assert "hidden" not in refused.value.sentence
    assert "other projects (1)" in refused.value.sentence


# --- queries


@pytest.mark.parametrize(
    ("name", "most"),
    [("checkpoints:index", 12), ("endpoints:index", 9), ("benchmarks:index", 8)],
)
def test_lists_ask_so_often_however_many_there_are(
    scene: Scene, name: str, most: int, django_assert_max_num_queries: Any
) -> None:
    page, counts = page_of(scene.user), []
    endpoints.register(owner=scene.user, name="one", base_url="http://h", model="m")
    for _ in range(2):
        with django_assert_max_num_queries(most) as captured:
            page.get(reverse(name))
        counts.append(len(captured))
        for _ in range(4):
            made = f"m{uuid.uuid4().hex}"
            samples.make_checkpoint(scene.user, made, parent=scene.theirs)
            endpoints.register(owner=scene.user, name=f"e{made}", base_url="http://h", model="m")
    assert counts[0] == counts[1]

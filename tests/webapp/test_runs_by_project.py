"""Runs belong to projects: what others may not see is nowhere, what they may not do is refused."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.db.models.functions import Now
from django.test import Client
from django.utils import timezone

from distiller.recipe import Recipe
from evaluator.protocol import PRESETS
from tests.webapp import samples
from tests.webapp.test_ledger import spend
from webapp.benchmarks.models import Benchmark
from webapp.benchmarks.services import install_prompt_set
from webapp.checkpoints.models import Checkpoint
from webapp.core.errors import UserError
from webapp.core.models import AuditEntry
from webapp.notifications import services as notifications
from webapp.notifications.models import Notification, Preference
from webapp.projects.access import first_project
from webapp.projects.models import Membership, Project, Role
from webapp.runs import files, hosts, ledger, services, stages
from webapp.runs.launching.distil import DistillationForm
from webapp.runs.launching.evaluate import EvaluationForm
from webapp.runs.models import (
    Device,
    DeviceRequest,
    LedgerEntry,
    Run,
    Shard,
    State,
    WorkerHeartbeat,
)

pytestmark = pytest.mark.django_db

SECRET = "sesame"  # in every name of the other project
PAGES = ("/runs/", "/runs/list/", "/runs/turns/", "/runs/workers/", "/runs/workers/live/",
         "/runs/distil/", "/runs/evaluate/", "/runs/import/", "/notifications/",
         *(f"/costs/?by={by}{form}" for by in ("run", "person", "student", "kind")
           for form in ("", "&csv=1")))  # fmt: skip
LAUNCHES = ("distil/", "distil/recipe/", "distil/estimate/", "distil/check/", "evaluate/",
            "evaluate/plan/", "import/")  # fmt: skip


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, settings: Any, tmp_path: Path) -> None:
    settings.MEDIA_ROOT = tmp_path
    monkeypatch.setattr(stages, "ring", lambda stage, times: None)


@pytest.fixture
def lab(django_user_model: Any) -> SimpleNamespace:
    """Another project with a finished distillation, a run that is being done, and a viewer."""
    eve, vera = (django_user_model.objects.create_user(name) for name in (f"eve-{SECRET}", "vera"))
    Membership.objects.filter(user__in=(eve, vera)).delete()
    project = samples.make_project(f"Lab {SECRET}", {eve: Role.OPERATOR, vera: Role.VIEWER})
    teacher = samples.make_checkpoint(eve, f"teacher-{SECRET}", project=project)
    done = samples.make_run(
        eve, f"done {SECRET}", Run.Kind.DISTILLATION, project=project,
        config={"thinking": {"kind": "tags"}, "decontaminate": True},
    )  # fmt: skip
    student = samples.make_checkpoint(
        eve, f"student-{SECRET}", project=project, produced_by=done, parent=teacher
    )
    spend(done, "train", 600)
    Run.objects.filter(pk=done.pk).update(state=State.FINISHED)
    busy = samples.make_run(
        eve, f"busy {SECRET}", Run.Kind.EVALUATION, State.RUNNING, project=project,
        config=PRESETS["quick"].model_dump(mode="json"),
    )  # fmt: skip
    stage = samples.make_stage(busy, 0, "evaluate", f"Draw {SECRET}", state=State.RUNNING)
    for index in range(2):
        Shard.objects.create(
            stage=stage, index=index, state=State.RUNNING, worker=f"alpha/{index}",
            lease_expires_at=Now() + timedelta(hours=1),
        )  # fmt: skip
        hosts.greet(f"alpha/{index}", "alpha", ["gpu"])
    WorkerHeartbeat.objects.update(doing=str(stage))
    hosts.greet("alpha/between", "alpha", ["gpu"])
    WorkerHeartbeat.objects.filter(name="alpha/between").update(doing=str(stage))
    queued = samples.make_stage(busy, 1, "grade", f"Judge {SECRET}", state=State.QUEUED,
                                queue="judge")  # fmt: skip
    Shard.objects.create(stage=queued, index=0)
    request = DeviceRequest.objects.create(
        host="alpha", stage=stage, count=1, worker="alpha/0", created_at=Now(), granted_at=Now(),
        expires_at=Now() + timedelta(minutes=5),
    )  # fmt: skip
    Device.objects.create(host="alpha", name="GPU-0", sampled_at=Now(), request=request)
    return SimpleNamespace(
        project=project, eve=eve, vera=vera, done=done, busy=busy, teacher=teacher, student=student
    )


@pytest.fixture
def here(user: Any) -> Project:
    """What is installed, and what the first project has."""
    problems = samples.arithmetic(4)
    samples.make_benchmark(problems)
    install_prompt_set("sums", problems)
    samples.make_checkpoint(user, "teacher")
    samples.make_checkpoint(user, "base")
    return first_project()


def browser(person: Any) -> Client:
    client = Client()
    client.force_login(person)
    return client


# --- what others may not see


def test_no_page_of_runs_shows_anything_of_a_foreign_project(
    user: Any, here: Project, lab: SimpleNamespace
) -> None:
    page = browser(user)
    for address in PAGES:
        response = page.get(address)
        assert response.status_code == 200, address
        assert SECRET not in response.content.decode(), address
    workers = page.get("/runs/workers/").content.decode()
    assert workers.count(">busy<") == 3  # that they work is told, not at what
    assert "a run of another project" in workers
    assert "no worker serves" not in workers  # the shard that waits is foreign
    assert page.get("/runs/", {"owner": lab.eve.username}).context["runs"] == []
    assert page.get("/runs/", {"project": lab.project.name}).context["runs"] == []


def test_its_members_and_administrators_see_all_that(
    admin: Any, here: Project, lab: SimpleNamespace
) -> None:
    told = ["/runs/", "/runs/turns/", "/runs/workers/"]
    told += [
        f"/costs/?by={by}{form}" for by in ("run", "person", "student") for form in ("", "&csv=1")
    ]
    for person in (lab.vera, admin):
        page = browser(person)
        for address in told:
            assert SECRET in page.get(address).content.decode(), address
        assert "no worker serves" in page.get("/runs/workers/").content.decode()


def test_a_foreign_run_does_not_exist(user: Any, here: Project, lab: SimpleNamespace) -> None:
    page = browser(user)
    for run in (lab.done, lab.busy):
        for part in ("", "live/", "latest/", "examples/kept/", "checked/"):
            assert page.get(f"/runs/{run.pk}/{part}").status_code == 404, part
        for part in ("cancel/", "retry/", "priority/"):
            assert page.post(f"/runs/{run.pk}/{part}", {"priority": 0}).status_code == 404, part
    assert page.get(f"/runs/distil/?clone={lab.done.pk}").status_code == 404
    assert page.get(f"/runs/evaluate/?clone={lab.busy.pk}").status_code == 404
    lab.busy.refresh_from_db()
    assert lab.busy.state == State.RUNNING


def test_an_estimate_rests_on_nothing_that_one_does_not_see(
    user: Any, here: Project, lab: SimpleNamespace
) -> None:
    samples.make_evaluation(
        lab.eve, Checkpoint.objects.get(name="base"),
        Benchmark.objects.get(), samples.arithmetic(4), run=lab.busy,
    )  # fmt: skip
    drawn = lab.busy.stages.filter(kind="evaluate").last()
    drawn.config, drawn.tokens = {"engine": "transformers"}, 1000
    drawn.finished_at = drawn.started_at + timedelta(seconds=9)
    drawn.save()
    told = {}
    for person, role in ((user, "stranger"), (lab.vera, "member")):
        Membership.objects.get_or_create(project=here, user=person, role=Role.OPERATOR)
        fields = browser(person).get("/runs/evaluate/").context["form"].fields
        sent = {
            "checkpoints": [Checkpoint.objects.get(name="base").pk],
            "benchmarks": [fields["benchmarks"].queryset[0].pk],
            "protocol": "quick", "engine": "transformers",
        }  # fmt: skip
        plan = browser(person).post("/runs/evaluate/plan/", sent).context["plan"]
        told[role] = plan.times[0].is_known
    assert told == {"stranger": False, "member": True}


def test_costs_of_a_run_that_is_gone_are_its_persons(
    user: Any, admin: Any, here: Project, lab: SimpleNamespace
) -> None:
    spend(samples.make_run(user, "mine", Run.Kind.EVALUATION), "evaluate", 60)
    LedgerEntry.objects.update(run=None, stage=None, shard=None)
    for person, leases in ((user, 1), (lab.eve, 1), (lab.vera, 0), (admin, 2)):
        table = browser(person).get("/costs/").context["table"]
        assert table.total.leases == leases, person
    user.limited_to = here.pk  # as by a token
    assert not ledger.seen_entries(user).exists()


def test_people_at_turns_are_those_of_ones_projects(
    user: Any, here: Project, lab: SimpleNamespace, admin: Any
) -> None:
    for person, expected in (
        (user, {"ada"}), (lab.vera, {"vera", lab.eve.username}),
        (admin, {"ada", "vera", "root", lab.eve.username}),
    ):  # fmt: skip
        rows = browser(person).get("/runs/turns/").context["rows"]
        assert {each.username for each, _ in rows} == expected
        assert sum(busy for _, busy in rows) == (0 if person == user else 2)


def test_the_page_of_turns_asks_the_same_number_of_questions_for_any_number(
    user: Any, lab: SimpleNamespace, django_user_model: Any, django_assert_max_num_queries: Any
) -> None:
    page, counts = browser(user), []
    for size in (2, 7):
        for number in range(size):
            person = django_user_model.objects.create_user(f"person-{size}-{number}")
            samples.make_run(person, f"run {number}", Run.Kind.EVALUATION, State.QUEUED)
        with django_assert_max_num_queries(9) as asked:
            page.get("/runs/turns/")
        counts.append(len(asked))
    assert counts[0] == counts[1]


def test_who_left_the_project_is_told_no_more_of_its_runs(
    user: Any, lab: SimpleNamespace, mailoutbox: Any, settings: Any
) -> None:
    settings.EMAIL_CONFIGURED = True
    Preference.objects.create(
        user=lab.eve, email="eve@example.org", since=timezone.now() - timedelta(days=1)
    )
    samples.make_run(lab.eve, "a check", Run.Kind.CHECK, project=lab.project)  # is not told of
    assert notifications.note_ends() == 1
    lab.project.memberships.filter(user=lab.eve).delete()
    assert notifications.deliver_due() == 0
    assert mailoutbox == []
    given_up = Notification.objects.get()
    assert "not in the run's project any more" in given_up.error
    assert given_up.next_at is None
    assert SECRET not in browser(lab.eve).get("/notifications/").context["sent"]


# --- what a viewer may not do


def test_a_viewer_looks_and_launches_nothing(here: Project, lab: SimpleNamespace) -> None:
    page = browser(lab.vera)
    for address in ("/runs/", f"/runs/{lab.done.pk}/", f"/runs/{lab.busy.pk}/"):
        text = page.get(address).content.decode()
        assert SECRET in text
        for button in ("/runs/distil/", "/runs/evaluate/", "/runs/import/", "/cancel/", "/retry/"):
            assert f'{button}"' not in text, (address, button)
            assert f"{button}?" not in text, (address, button)
    for part in LAUNCHES:
        refused = page.post(f"/runs/{part}", {})
        assert refused.status_code == 403, part
        assert "ask an admin of a project" in refused.content.decode()
    for part in ("cancel/", "retry/", "priority/"):
        refused = page.post(f"/runs/{lab.busy.pk}/{part}", {"priority": -1})
        assert refused.status_code == 403, part
        assert "admins of its project" in refused.content.decode()
    assert Run.objects.count() == 2


def test_an_admin_of_the_project_decides_about_others_runs(user: Any, lab: SimpleNamespace) -> None:
    Membership.objects.create(project=lab.project, user=user, role=Role.ADMIN)
    page = browser(user)
    assert lab.busy.pk in page.get("/runs/turns/").context["changeable"]
    page.post(f"/runs/{lab.busy.pk}/priority/", {"priority": -3})
    page.post(f"/runs/{lab.busy.pk}/cancel/")
    lab.busy.refresh_from_db()
    assert (lab.busy.priority, lab.busy.state) == (-3, State.CANCELLED)
    page.post(f"/runs/{lab.busy.pk}/retry/")
    done = list(AuditEntry.objects.order_by("pk").values_list("action", "user_name", "key"))
    key = str(lab.busy.pk)
    assert done == [(f"run.{what}", "ada", key) for what in ("priority", "cancel", "retry")]


# --- where a run goes, and what it may use


def filled(form: DistillationForm, **changes: Any) -> dict[str, Any]:
    values = {each.name: each.value() for each in form if each.value() or each.value() == 0}
    values = {name: value for name, value in values.items() if value is not False}
    named = {
        "teacher": Checkpoint.objects.get(name="teacher").pk, "student": "s",
        "base": Checkpoint.objects.get(name="base").pk,
        "prompt_set": form.fields["prompt_set"].queryset[0].pk,  # type: ignore[attr-defined]
    }  # fmt: skip
    return values | named | changes


def labels(form: DistillationForm, name: str) -> list[str]:
    return [str(label) for value, label in form.fields[name].choices if value]  # type: ignore[attr-defined]


def test_the_project_is_asked_for_only_where_there_are_several(
    user: Any, here: Project, lab: SimpleNamespace
) -> None:
    assert "project" not in DistillationForm(user).fields
    assert labels(DistillationForm(user), "base") == ["base", "teacher"]
    Membership.objects.create(project=lab.project, user=user, role=Role.VIEWER)
    form = DistillationForm(user)
    assert "project" not in form.fields
    assert labels(form, "base") == [
        "base", f"student-{SECRET} · {lab.project}", "teacher", f"teacher-{SECRET} · {lab.project}"
    ]  # fmt: skip
    Membership.objects.filter(user=user, project=lab.project).update(role=Role.OPERATOR)
    assert labels(DistillationForm(user), "base")[0] == f"base · {here}"
    for each in (DistillationForm(user), EvaluationForm(user)):
        assert each["project"].value() == here.pk
    samples.make_run(user, "there", Run.Kind.EVALUATION, project=lab.project)
    page = browser(user)
    for address in ("/runs/distil/", "/runs/evaluate/", "/runs/import/"):
        response = page.get(address)
        assert response.context["form"]["project"].value() == lab.project.pk  # the last used
        assert 'name="project"' in response.content.decode()


def test_a_run_goes_where_the_form_says_and_a_clone_where_its_model_is(
    user: Any, here: Project, lab: SimpleNamespace
) -> None:
    Membership.objects.create(project=lab.project, user=user, role=Role.OPERATOR)
    page = browser(user)
    form = page.get("/runs/distil/").context["form"]
    refused = page.post("/runs/distil/", filled(form, project=999))
    assert "project" in refused.context["form"].errors
    answer = page.post("/runs/distil/", filled(form, project=lab.project.pk))
    assert answer.status_code == 302, answer.context["form"].errors
    first = Run.objects.latest("pk")
    assert first.project == lab.project
    page.post("/runs/distil/", filled(form, project=here.pk, student="t"))
    clone = page.get(f"/runs/distil/?clone={first.pk}").context["form"]
    assert clone["project"].value() == lab.project.pk  # although "here" was used last
    preset = page.post("/runs/distil/", {"action": "preset:quick", "project": lab.project.pk})
    assert str(preset.context["form"]["project"].value()) == str(lab.project.pk)
    Membership.objects.filter(user=user, project=lab.project).update(role=Role.VIEWER)
    clone = page.get(f"/runs/distil/?clone={first.pk}").context["form"]
    assert "project" not in clone.fields
    logged = AuditEntry.objects.filter(action="run.launch").order_by("pk")
    assert [each.project_name for each in logged] == [lab.project.name, here.name]


def test_models_of_an_open_project_are_used_and_foreign_ones_are_not(
    user: Any, here: Project, lab: SimpleNamespace
) -> None:
    page = browser(user)
    form = page.get("/runs/distil/").context["form"]
    sent = filled(form, teacher=lab.teacher.pk)
    refused = page.post("/runs/distil/", sent)
    assert set(refused.context["form"].errors) == {"teacher"}
    Project.objects.filter(pk=lab.project.pk).update(open=True)
    assert page.post("/runs/distil/", sent).status_code == 302
    run = Run.objects.latest("pk")
    assert (run.project, run.config["teacher"]) == (here, lab.teacher.name)


def test_services_look_again_at_who_may_use_what(
    user: Any, here: Project, lab: SimpleNamespace, tmp_path: Path
) -> None:
    benchmark = Benchmark.objects.get()
    base = Checkpoint.objects.get(name="base")
    measured: dict[str, Any] = {"benchmarks": [benchmark], "protocol": PRESETS["quick"]}
    with pytest.raises(UserError, match="no checkpoint that you may use"):
        services.launch_evaluations(owner=user, checkpoints=[base, lab.teacher], **measured)
    with pytest.raises(UserError, match="takes nothing new from you"):
        services.launch_evaluations(owner=user, project=lab.project, checkpoints=[base], **measured)
    with pytest.raises(UserError, match="you are an operator of none"):
        services.launch_evaluations(owner=lab.vera, checkpoints=[base], **measured)
    names = {
        "teacher": lab.teacher.name,
        "base": "base",
        "student": "s",
        "prompts": {"set": "sums"},
    }
    with pytest.raises(UserError, match="no checkpoint with files"):
        services.launch_distillation(owner=user, recipe=Recipe.model_validate(names))
    path = tmp_path / "c.jsonl"
    path.write_text(json.dumps({"problem_id": "sum-000", "completion": "0"}) + "\n")
    there: dict[str, Any] = {"benchmark": benchmark, "path": path, "checkpoint_name": "elsewhere"}
    services.import_completions(owner=lab.eve, **there)
    before = Run.objects.count(), list(files.store_path("runs").iterdir())
    lab.project.memberships.filter(user=lab.eve).delete()
    Membership.objects.create(project=here, user=lab.eve, role=Role.OPERATOR)
    with pytest.raises(UserError, match="choose another"):
        services.import_completions(owner=lab.eve, **there)
    assert (Run.objects.count(), list(files.store_path("runs").iterdir())) == before

"""Who sees what of the leaderboard: a foreign project's rows do not exist, viewers only look."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse

from tests.webapp.leaderboard.comparing import spend
from tests.webapp.samples import (
    arithmetic,
    make_benchmark,
    make_checkpoint,
    make_evaluation,
    make_project,
    make_run,
    plain_draw,
    text_of,
)
from webapp.core.models import AuditEntry
from webapp.leaderboard import board, choice, compare, costs, desk, reports
from webapp.leaderboard.models import Dispute, DisputedScore, Report
from webapp.projects.access import first_project
from webapp.projects.models import Membership, Project, Role
from webapp.runs.models import Evaluation

pytestmark = pytest.mark.django_db
PROBLEMS = arithmetic(12)
FOREIGN = "zz-foreign"  # stands in every name of the project that ``user`` is not in


@pytest.fixture
def foreign(admin: Any) -> Project:
    return make_project(FOREIGN)


@pytest.fixture
def own(user: Any) -> Evaluation:
    checkpoint = make_checkpoint(user, "own", tags=["mine"])
    benchmark = make_benchmark(PROBLEMS)
    return make_evaluation(user, checkpoint, benchmark, PROBLEMS, seed=1, draw=plain_draw(0.4))


@pytest.fixture
def theirs(admin: Any, own: Evaluation, foreign: Project) -> Evaluation:
    """A better student of the same base, of another family, on the same problems."""
    checkpoint = make_checkpoint(
        admin, f"{FOREIGN}-student", project=foreign, parent=own.checkpoint, tags=[FOREIGN],
        architecture="FremdForCausalLM",
    )  # fmt: skip
    return make_evaluation(
        admin, checkpoint, own.benchmark, PROBLEMS, seed=2, draw=plain_draw(0.99)
    )


@pytest.fixture
def viewer(user: Any) -> Client:
    """The browser of somebody who may look at the first project."""
    person = get_user_model().objects.create_user("vera")
    Membership.objects.filter(user=person).update(role=Role.VIEWER)
    client = Client()
    client.force_login(person)
    return client


def everything_of(found: Evaluation) -> dict[str, str]:
    """Every address that belongs to one evaluation, by what it is."""
    problem = found.benchmark.problems.first()
    assert problem is not None
    DisputedScore.objects.create(evaluation=found)
    sample = [found.pk, problem.pk, 0]
    named = {
        name: reverse(f"leaderboard:{name}", args=[found.pk])
        for name in (
            "evaluation", "disputes", "disputed_score", "disputes_jsonl", "reports", "reports_live",
            *(f"report_{form}" for form in reports.AT_ONCE),
        )
    }  # fmt: skip
    return named | {
        "problem": reverse("leaderboard:problem", args=[found.pk, problem.pk]),
        "raw": reverse("leaderboard:raw", args=sample),
        "thinking": reverse("leaderboard:part", args=[*sample, "thinking"]),
        "answer": reverse("leaderboard:part", args=[*sample, "answer"]),
    }


def test_what_belongs_to_an_evaluation_is_seen_with_its_project_only(
    own: Evaluation, theirs: Evaluation, page: Client, viewer: Client, admin: Any
) -> None:
    root = Client()
    root.force_login(admin)
    for name, address in everything_of(own).items():
        assert page.get(address).status_code == 200, name
        assert viewer.get(address).status_code == 200, name
    for name, address in everything_of(theirs).items():
        assert page.get(address).status_code == 404, name
        assert root.get(address).status_code == 200, name


def test_a_report_that_was_made_is_its_projects(
    own: Evaluation, theirs: Evaluation, page: Client, viewer: Client
) -> None:
    """Viewers ask for reports and have them; others can neither, by any number."""
    assert page.post(
        reverse("leaderboard:ask_report", args=[theirs.pk]), {"format": "zip"}
    ).status_code == 404  # fmt: skip
    viewer.post(reverse("leaderboard:ask_report", args=[own.pk]), {"format": "zip"})
    job = desk.claim()
    assert job is not None
    desk.do(job)
    row = Report.objects.get()
    (told,) = AuditEntry.objects.all()
    assert (told.user_name, told.action, told.key) == ("vera", "report.ask", str(row.pk))
    address = reverse("leaderboard:download", args=[own.pk, row.pk])
    for client in (viewer, page):
        response = client.get(address)
        assert b"".join(response.streaming_content).startswith(b"PK")
    Report.objects.update(evaluation=theirs)
    for pk in (own.pk, theirs.pk):
        assert page.get(reverse("leaderboard:download", args=[pk, row.pk])).status_code == 404


def test_viewers_dispute_nothing(own: Evaluation, user: Any, page: Client, viewer: Client) -> None:
    wrong = own.completions.filter(outcome="wrong").first()
    assert wrong is not None
    problem = reverse("leaderboard:problem", args=[own.pk, wrong.problem_id])
    sample = f"{problem}?sample={wrong.sample}"
    assert "Dispute this outcome" in text_of(page.get(sample))
    assert "Dispute this outcome" not in text_of(viewer.get(sample))
    dispute = reverse("leaderboard:dispute", args=[own.pk, wrong.problem_id, wrong.sample])
    claim = {"claim": "correct", "reason": "it is"}
    assert viewer.post(dispute, claim).status_code == 403
    assert not Dispute.objects.exists()
    page.post(dispute, claim)
    withdraw = reverse("leaderboard:withdraw", args=[own.pk, Dispute.objects.get().pk])
    assert viewer.post(withdraw).status_code == 403
    for address in (sample, reverse("leaderboard:disputes", args=[own.pk])):
        assert "Withdraw</button>" not in text_of(viewer.get(address))
    Membership.objects.filter(user=user).update(role=Role.VIEWER)
    assert page.post(withdraw).status_code == 403, "who launched it, and is a viewer now"
    Membership.objects.filter(user=user).update(role=Role.OPERATOR)
    for _ in range(2):  # the second changes nothing
        page.post(withdraw)
    told = AuditEntry.objects.order_by("pk").values_list("user_name", "action", "project_name")
    assert list(told) == [
        ("ada", "dispute.create", "Main"), ("ada", "dispute.withdraw", "Main"),
    ]  # fmt: skip


def test_viewers_are_offered_nothing_to_launch(
    own: Evaluation, user: Any, page: Client, viewer: Client
) -> None:
    other = make_evaluation(user, make_checkpoint(user, "x"), own.benchmark, PROBLEMS, seed=7)
    compared = reverse("leaderboard:compare")
    for address in ("/", own.get_absolute_url(), f"{compared}?e={own.pk},{other.pk}"):
        assert f'href="{reverse("runs:evaluate")}' in shown(text_of(page.get(address))), address
        for name in ("runs:evaluate", "runs:distil", "checkpoints:upload"):
            assert f'href="{reverse(name)}' not in shown(text_of(viewer.get(address))), address
    Evaluation.objects.update(metrics=None)
    for address in ("/?published=no", compared):
        assert 'class="empty"' in text_of(viewer.get(address))
        assert f'href="{reverse("runs:evaluate")}' not in shown(text_of(viewer.get(address)))


def test_foreign_outcomes_cannot_be_disputed(
    own: Evaluation, theirs: Evaluation, page: Client, admin: Any
) -> None:
    first = theirs.completions.first()
    assert first is not None
    address = reverse("leaderboard:dispute", args=[theirs.pk, first.problem_id, first.sample])
    assert page.post(address, {"claim": "wrong", "reason": "x"}).status_code == 404
    row = Dispute.objects.create(
        evaluation=theirs, problem=first.problem, sample=first.sample, claim="wrong", reason="r",
        outcome=first.outcome, author=admin,
    )  # fmt: skip
    for pk in (own.pk, theirs.pk):
        address = reverse("leaderboard:withdraw", args=[pk, row.pk])
        assert page.post(address).status_code == 404


# --- the leaderboard


def test_nothing_of_a_foreign_project_moves_the_leaderboard(
    user: Any, own: Evaluation, page: Client, request: pytest.FixtureRequest
) -> None:
    """Rows, ranks, tabs, counts, options and marks are those of an installation without it."""
    make_evaluation(user, make_checkpoint(user, "second"), own.benchmark, PROBLEMS, seed=5)
    addresses = [
        "/", "/?benchmark=arithmetic", "/?kind=base", "/leaderboard.csv",
        f"/?project={FOREIGN}", f"/?family=Fremd&tag={FOREIGN}",
    ]  # fmt: skip
    before = {address: shown(text_of(page.get(address))) for address in addresses}
    theirs = request.getfixturevalue("theirs")
    elsewhere = make_benchmark(PROBLEMS[:5], FOREIGN, FOREIGN)
    for seed in range(3):  # they make up most measurements, and know another benchmark
        name = f"{FOREIGN}-{seed}"
        checkpoint = make_checkpoint(
            theirs.run.owner, name, project=theirs.run.project, architecture="FremdForCausalLM"
        )
        make_evaluation(theirs.run.owner, checkpoint, elsewhere, PROBLEMS[:5], samples=1)
    for address in addresses:
        assert shown(text_of(page.get(address))) == before[address], address


def shown(text: str) -> str:
    """What a page shows, without the tokens around it; the whole of a file."""
    found = re.search(r"<main.*</main>", text, re.DOTALL)
    return found[0] if found else text


def test_an_open_projects_rows_are_everybodys_and_private_runs_of_its_models_are_not(
    user: Any, own: Evaluation, theirs: Evaluation, page: Client
) -> None:
    shared = make_project("Shared", open=True)
    checkpoint = make_checkpoint(theirs.run.owner, "shared model", project=shared)
    public = make_evaluation(theirs.run.owner, checkpoint, own.benchmark, PROBLEMS, seed=3)
    private = make_evaluation(
        theirs.run.owner, checkpoint, own.benchmark, PROBLEMS, seed=4,
        run=make_run(theirs.run.owner, FOREIGN, "evaluation", project=theirs.run.project),
    )  # fmt: skip
    assert {row.name: row.tick for row in rows(user)} == {
        "own": own.pk, "shared model": public.pk,
    }  # fmt: skip
    assert {row.tick for row in rows(theirs.run.owner)} == {own.pk, theirs.pk, private.pk}
    shared.open = False
    shared.save()
    assert [row.name for row in rows(user)] == ["own"]


def rows(person: Any, **wanted: str) -> list[board.Row]:
    found = board.build(person, choice.Choice(benchmark="arithmetic", published="no", **wanted))
    return found.rows


def test_where_one_sees_several_projects_one_can_be_chosen(
    user: Any, own: Evaluation, theirs: Evaluation, foreign: Project, page: Client
) -> None:
    """The board is then that project's: its counts and its usual measurements."""
    assert 'name="project"' not in text_of(page.get("/"))
    Membership.objects.create(project=foreign, user=user, role=Role.VIEWER)
    assert {row.name for row in rows(user)} == {"own", f"{FOREIGN}-student"}
    assert [row.name for row in rows(user, project=FOREIGN)] == [f"{FOREIGN}-student"]
    assert [row.projects for row in rows(user, project=str(first_project()))] == ["Main"]
    assert rows(user, project="none of that name") == []
    text = text_of(page.get("/", {"project": FOREIGN, "published": "no"}))
    assert f"<option selected>{FOREIGN}</option>" in text
    assert "<option>Main</option>" in text
    assert '<span class="small">1</span>' in text, "the tab counts what is shown"
    assert "own</a>" not in text


# --- comparisons


def test_a_foreign_evaluation_is_as_unknown_as_none(
    own: Evaluation, theirs: Evaluation, user: Any, page: Client
) -> None:
    """Every address answers as it does once the foreign evaluation is gone for good."""
    other = make_evaluation(user, make_checkpoint(user, "x"), own.benchmark, PROBLEMS, seed=7)
    problem = own.benchmark.problems.first()
    assert problem is not None
    paths = [
        *(reverse(f"leaderboard:{name}")
          for name in ("compare", "compare_csv", "compare_problems_csv")),
        reverse("leaderboard:compare_problem", args=[problem.pk]),
    ]  # fmt: skip
    choices = [f"{own.pk},{other.pk},{theirs.pk}", f"{own.pk},{theirs.pk}", str(theirs.pk)]

    def answers() -> dict[str, tuple[int, str]]:
        found = {}
        for address in (f"{path}?e={wanted}" for path in paths for wanted in choices):
            response = page.get(address)
            found[address] = response.status_code, shown(response.content.decode())
        return found

    there = answers()
    Evaluation.objects.filter(pk=theirs.pk).delete()
    assert there == answers()
    assert [status for status, _ in there.values()] == [200, 200, 200, *[200, 404, 404] * 3]
    said = f"Evaluation {theirs.pk} has no figures here and was left out."
    assert said in there[f"{paths[0]}?e={choices[0]}"][1]
    assert not any(FOREIGN in text for _, text in there.values())


def test_nothing_foreign_is_offered_or_joins_by_itself(
    user: Any, own: Evaluation, theirs: Evaluation, page: Client, admin: Any
) -> None:
    """Their student's page knows its parent; a student of theirs here does not know theirs."""
    assert [each.pk for each in compare.others(user, [own])] == []
    assert compare.with_parent(admin, theirs) == [own, theirs]
    child = make_evaluation(
        user, make_checkpoint(user, "child", parent=theirs.checkpoint), own.benchmark, PROBLEMS
    )
    assert compare.with_parent(user, child) == [child]
    assert [each.pk for each in compare.others(user, [child])] == [own.pk]
    for address in (child.get_absolute_url(), f"{reverse('leaderboard:compare')}?e={child.pk}"):
        assert FOREIGN not in text_of(page.get(address))


def test_costs_are_those_of_runs_that_one_sees(
    user: Any, admin: Any, own: Evaluation, theirs: Evaluation
) -> None:
    """A foreign project's measurements of an open model are nobody else's business."""
    elsewhere = make_evaluation(
        admin, own.checkpoint, own.benchmark, PROBLEMS,
        run=make_run(admin, FOREIGN, "evaluation", project=theirs.run.project),
    )  # fmt: skip
    other = make_evaluation(user, make_checkpoint(user, "x"), own.benchmark, PROBLEMS, seed=7)
    for each, seconds in ((own, 60), (elsewhere, 3600)):
        spend(each, "evaluate", device_seconds=seconds)
    found = compare.compare([own, other], own)
    for person, seconds in ((user, 60), (admin, 3660)):
        taken = [row.cost.evaluation.spent.device_seconds for row in costs.costs(person, found)]
        assert sum(taken) == seconds

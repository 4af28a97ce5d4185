"""Disputes: kept, attributed, withdrawn, scored beside the grader; nothing is ever replaced."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse

from evaluator import disputes as library
from evaluator.records import Outcome
from tests.webapp.samples import (
    HOSTILE,
    arithmetic,
    make_benchmark,
    make_checkpoint,
    make_evaluation,
)
from webapp.leaderboard import desk, disputes
from webapp.leaderboard.models import Dispute, DisputedScore
from webapp.runs.models import Completion, Evaluation

pytestmark = pytest.mark.django_db
PROBLEMS = arithmetic(6)


def draw(rng: Any, problem: Any, sample: int) -> Any:
    """Two right, two with one same wrong answer, one without any, one that the grader lost."""
    if sample < 2:
        return "x", Outcome.CORRECT, problem.answer, "equal"
    if sample < 4:
        return "x", Outcome.WRONG, "-1", "other"
    return "x", Outcome.NO_ANSWER, None, "none"


@pytest.fixture
def found(user: Any) -> Evaluation:
    checkpoint = make_checkpoint(user, "m")
    return make_evaluation(
        user, checkpoint, make_benchmark(PROBLEMS), PROBLEMS, samples=5, draw=draw
    )


def sample(found: Evaluation, number: int, position: int = 0) -> Completion:
    return found.completions.select_related("evaluation__run").get(
        problem__position=position, sample=number
    )


def post(client: Client, completion: Completion, **data: str) -> Any:
    address = reverse(
        "leaderboard:dispute",
        args=[completion.evaluation_id, completion.problem_id, completion.sample],
    )
    return client.post(address, {"claim": "correct", "reason": "it is", **data}, follow=True)


def test_both_figures_are_shown_and_the_graders_stays(
    found: Evaluation, user: Any, page: Client
) -> None:
    before = (found.metrics, found.pass_at_1, list(found.completions.values_list("outcome")))
    text = post(page, sample(found, 2), alike="yes").content.decode()
    assert "Your dispute of 2 samples is kept" in text
    assert "is being worked out" in page.get(found.get_absolute_url()).content.decode()
    job = desk.claim()
    assert job == desk.Job("disputes", found.pk)
    assert desk.claim() is None
    desk.do(job)
    found.refresh_from_db()
    outcomes = list(found.completions.values_list("outcome"))
    assert (found.metrics, found.pass_at_1, outcomes) == before
    score = DisputedScore.objects.get()
    assert score.metrics is not None
    assert found.metrics is not None
    # By hand: 6 problems × 5 samples, 2 right in each; now 4 in one of them.
    assert found.metrics["pass@1"]["value"] == pytest.approx(12 / 30)
    assert score.metrics["pass@1"]["value"] == pytest.approx(14 / 30)
    # cons@5: two right against two alike ties everywhere (½), and is won where all four agree.
    assert found.metrics["cons@k"]["5"] == pytest.approx(0.5)
    assert score.metrics["cons@k"]["5"] == pytest.approx((5 * 0.5 + 1) / 6)
    text = page.get(found.get_absolute_url()).content.decode()
    for figure in ("40.0", "46.7", "50.0", "58.3", "2 outcomes", "With disputes"):
        assert figure in text
    told = page.get(reverse("leaderboard:report_json", args=[found.pk])).json()
    assert told["metrics"]["pass@1"] == found.metrics["pass@1"]
    assert told["disputes"]["metrics"]["pass@1"] == score.metrics["pass@1"]
    assert [item["by"] for item in told["disputes"]["items"]] == ["ada", "ada"]
    assert sum(row["disputed"] == "correct" for row in told["samples"]) == 2
    report = page.get(reverse("leaderboard:report_html", args=[found.pk])).content.decode()
    assert "With disputes" in report
    assert "46.7 %" in report
    assert "40.0 %" in report


def test_withdrawing_brings_the_graders_figures_back_and_stays_on_record(
    found: Evaluation, user: Any, page: Client
) -> None:
    post(page, sample(found, 2), reason=HOSTILE)
    dispute = Dispute.objects.get()
    assert (dispute.author, dispute.outcome, dispute.answer) == (user, "wrong", "-1")
    listed = page.get(reverse("leaderboard:disputes", args=[found.pk])).content.decode()
    assert "&lt;script&gt;window" in listed
    assert "<script>window" not in listed
    address = reverse("leaderboard:withdraw", args=[found.pk, dispute.pk])
    assert page.get(address).status_code == 405
    page.post(address)
    dispute.refresh_from_db()
    assert dispute.withdrawn_by == user
    assert dispute.withdrawn_at is not None
    while (job := desk.claim()) is not None:
        desk.do(job)
    assert DisputedScore.objects.get().metrics is None
    assert "disputes" not in page.get(reverse("leaderboard:report_json", args=[found.pk])).json()
    listed = page.get(reverse("leaderboard:disputes", args=[found.pk])).content.decode()
    assert "withdrawn by ada" in listed
    post(page, sample(found, 2))  # and it may be disputed again
    assert Dispute.objects.filter(withdrawn_at=None).count() == 1


def test_only_the_owner_and_staff_may(found: Evaluation, page: Client) -> None:
    users = get_user_model().objects
    stranger, staff = users.create_user("eve"), users.create_user("sam", is_staff=True)
    for person, may in ((stranger, False), (staff, True)):
        client = Client()
        client.force_login(person)
        assert post(client, sample(found, 2)).status_code == (200 if may else 403)
        assert Dispute.objects.exists() == may
    dispute = Dispute.objects.get()
    client = Client()
    client.force_login(stranger)
    assert client.post(
        reverse("leaderboard:withdraw", args=[found.pk, dispute.pk])
    ).status_code == 403  # fmt: skip
    dispute.refresh_from_db()
    assert dispute.withdrawn_at is None
    shown = client.get(
        reverse("leaderboard:problem", args=[found.pk, dispute.problem_id]) + "?sample=3"
    )
    assert "Dispute this outcome" not in shown.content.decode()
    assert Client().post(reverse("leaderboard:withdraw", args=[found.pk, 1])).status_code == 302


@pytest.mark.parametrize(
    ("number", "data", "said"),
    [
        (2, {"reason": "  "}, "reason: say why"),
        (2, {"reason": "x" * 2001}, "reason: at most 2,000 characters"),
        (2, {"claim": "looped"}, "claim: say whether"),
        (2, {"claim": "wrong"}, "claim: that is what the grader says"),
        (0, {"claim": "correct"}, "claim: that is what the grader says"),
    ],
)
def test_what_cannot_be_disputed_is_refused_with_the_field(
    number: int, data: dict[str, str], said: str, found: Evaluation, page: Client
) -> None:
    assert said in post(page, sample(found, number), **data).content.decode()
    assert not Dispute.objects.exists()
    assert not DisputedScore.objects.exists()


def test_a_second_dispute_of_a_sample_and_one_of_an_error_are_refused(
    found: Evaluation, page: Client
) -> None:
    post(page, sample(found, 2))
    assert "disputed already" in post(page, sample(found, 2)).content.decode()
    assert Dispute.objects.count() == 1
    found.completions.filter(sample=3).update(outcome=Outcome.GRADER_ERROR)
    assert "no verdict to dispute" in post(page, sample(found, 3)).content.decode()


def test_what_is_disputed_while_it_is_scored_is_scored_again(
    found: Evaluation, user: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    disputes.dispute(user, sample(found, 2), "correct", "one")
    whole = disputes._rescored

    def slow(evaluation: Evaluation, words: Any) -> Any:
        if len(words) == 1:
            disputes.dispute(user, sample(found, 3), "correct", "two")
        return whole(evaluation, words)

    monkeypatch.setattr(disputes, "_rescored", slow)
    rounds = 0
    while (job := desk.claim()) is not None:
        desk.do(job)
        rounds += 1
    assert rounds == 2
    metrics = DisputedScore.objects.get().metrics
    assert metrics is not None
    assert metrics["pass@1"]["value"] == pytest.approx(14 / 30)


def test_a_score_that_fails_says_so_and_waits_for_a_person(
    found: Evaluation, user: Any, page: Client
) -> None:
    disputes.dispute(user, sample(found, 2), "correct", "one")
    job = desk.claim()
    assert job is not None
    desk.fail(job, "The grader is gone.")
    assert desk.claim() is None
    text = page.get(reverse("leaderboard:disputed_score", args=[found.pk])).content.decode()
    assert "The grader is gone." in text
    assert "every 2s" not in text
    disputes.dispute(user, sample(found, 3), "correct", "two")
    assert desk.claim() == job


def test_the_export_is_golden_cases_and_input_of_the_command(
    found: Evaluation, user: Any, page: Client, tmp_path: Any
) -> None:
    disputes.dispute(user, sample(found, 2), "correct", "−1 is what was asked", alike=True)
    disputes.dispute(user, sample(found, 0, position=1), "wrong", "a guess")
    body = page.get(reverse("leaderboard:disputes_jsonl", args=[found.pk])).content
    cases = [json.loads(line) for line in body.splitlines()]
    gold = PROBLEMS[0].answer
    assert [(c["gold"], c["prediction"], c["equal"], c["kind"]) for c in cases] == [
        (gold, "-1", True, "integer"), (gold, "-1", True, "integer"),
        (PROBLEMS[1].answer, PROBLEMS[1].answer, False, "integer"),
    ]  # fmt: skip
    path = tmp_path / "disputes.jsonl"
    path.write_bytes(body)
    assert library.read(path) == [disputes.record(row) for row in disputes.open_of(found)]

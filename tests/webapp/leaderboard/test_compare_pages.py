"""A comparison's pages and downloads: any address, few queries, texts that stay texts."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from evaluator.records import Outcome
from tests.webapp.leaderboard.comparing import PROBLEMS, address
from tests.webapp.samples import (
    HOSTILE,
    make_benchmark,
    make_checkpoint,
    make_evaluation,
    text_of,
)
from webapp.runs.models import Evaluation

pytestmark = pytest.mark.django_db


# --- addresses


def test_odd_addresses_are_answered_with_a_sentence(
    page: Client, base: Evaluation, student: Evaluation
) -> None:
    text = text_of(page.get(address(base, student, more=",9999,zwölf&base=x")))
    assert "Evaluation 9999 has no figures here" in text
    assert "“zwölf” is no evaluation&#x27;s number" in text
    assert "2 evaluations compared" in text
    for name in ("compare_csv", "compare_problems_csv"):
        assert page.get(reverse(f"leaderboard:{name}") + f"?e={base.pk}").status_code == 404


@pytest.mark.parametrize(
    "query", ["e=%00", "e=99999999999", "e=1,1,1", "e=-1", "e=1&base=99999999999&page=x&show=%00"]
)
def test_hostile_addresses_are_answered(page: Client, base: Evaluation, query: str) -> None:
    assert page.get(f"{reverse('leaderboard:compare')}?{query}").status_code == 200


def test_nothing_to_compare_offers_two_actions(page: Client) -> None:
    text = text_of(page.get(reverse("leaderboard:compare")))
    assert "it takes two evaluations that are graded" in text
    assert text.split('class="empty"')[1].count('class="button') == 2


def test_more_than_eight_are_cut_and_that_is_said(
    user: Any, page: Client, base: Evaluation
) -> None:
    rest = [
        make_evaluation(
            user, make_checkpoint(user, f"m{i}"), base.benchmark, PROBLEMS, samples=1, seed=i
        )
        for i in range(9)
    ]
    text = text_of(page.get(address(base, *rest)))
    assert "At most 8 evaluations stand side by side" in text
    assert "8 evaluations compared" in text


def test_a_problem_without_a_scored_sample_is_not_drawn_as_wrong(
    user: Any, page: Client, base: Evaluation
) -> None:
    def failing(rng: Any, problem: Any, sample: int) -> Any:
        is_lost = problem.id == PROBLEMS[3].id
        return "x", Outcome.ENGINE_ERROR if is_lost else Outcome.CORRECT, problem.answer, ""

    torn = make_evaluation(
        user, make_checkpoint(user, "torn"), base.benchmark, PROBLEMS, draw=failing
    )
    rows = text_of(page.get(address(base, torn))).split("<tr>")
    lost = next(row for row in rows if f">{PROBLEMS[3].id}<" in row)
    assert lost.count('class="heat"') == 1
    assert "none scored" in lost
    other = next(row for row in rows if f">{PROBLEMS[4].id}<" in row)
    assert other.count('class="heat"') == 2


# --- downloads


def test_csv_holds_the_figures_and_no_formula(user: Any, page: Client, base: Evaluation) -> None:
    def formula(rng: Any, problem: Any, sample: int) -> Any:
        return "x", Outcome.WRONG, "=cmd()", ""

    checkpoint = make_checkpoint(user, "=HYPERLINK(1)", parent=base.checkpoint)
    bad = make_evaluation(user, checkpoint, base.benchmark, PROBLEMS, draw=formula)
    query = f"?e={base.pk}&e={bad.pk}"
    first = page.get(reverse("leaderboard:compare_csv") + query)
    assert "attachment" in first["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(text_of(first), newline="")))
    assert [row["checkpoint"] for row in rows] == ["base", "'=HYPERLINK(1)"]
    assert base.metrics is not None
    assert float(rows[0]["pass@1"]) == pytest.approx(100 * base.metrics["pass@1"]["value"])
    assert float(rows[1]["difference"]) == pytest.approx(-float(rows[0]["pass@1"]))
    assert rows[0]["difference"] == ""
    by_problem = text_of(page.get(reverse("leaderboard:compare_problems_csv") + query))
    lines = list(csv.reader(io.StringIO(by_problem, newline="")))
    assert len(lines) == 1 + len(PROBLEMS)
    assert not any(cell.startswith(("=", "+", "@")) for line in lines for cell in line)
    assert any("'=cmd()" in line for line in lines)


def test_private_answers_stay_out_of_the_csv(user: Any, page: Client) -> None:
    benchmark = make_benchmark(PROBLEMS, "gpqa_diamond", "GPQA")
    both = [
        make_evaluation(user, make_checkpoint(user, name), benchmark, PROBLEMS, seed=i)
        for i, name in enumerate("ab")
    ]
    query = f"?e={both[0].pk},{both[1].pk}"
    text = text_of(page.get(reverse("leaderboard:compare_problems_csv") + query))
    assert "reference" not in text
    assert "majority" not in text


# --- side by side


def test_one_problem_side_by_side_with_the_thinking_folded(
    page: Client, base: Evaluation, student: Evaluation
) -> None:
    problem = base.benchmark.problems.get(problem_id="sum-004")
    where = reverse("leaderboard:compare_problem", args=[problem.pk])
    text = text_of(page.get(f"{where}?e={base.pk},{student.pk}&sampleB=3"))
    assert text.count('<details class="fold" id="thinking-') == 2
    assert "?sample=3#sample" in text
    assert "sampleB=4" in text
    assert "sampleB=2" in text
    assert problem.answer in text
    assert page.get(f"{where}?e={base.pk}").status_code == 404
    assert page.get(
        reverse("leaderboard:compare_problem", args=[99999]) + f"?e={base.pk},{student.pk}"
    ).status_code == 404  # fmt: skip


def test_hostile_texts_stay_text(user: Any, page: Client, base: Evaluation) -> None:
    def hostile(rng: Any, problem: Any, sample: int) -> Any:
        return f"<think>\n{HOSTILE}\n</think>{HOSTILE}", Outcome.WRONG, HOSTILE, HOSTILE

    bad = make_evaluation(
        user, make_checkpoint(user, "hostile"), base.benchmark, PROBLEMS, draw=hostile
    )
    problem = base.benchmark.problems.first()
    assert problem is not None
    where = reverse("leaderboard:compare_problem", args=[problem.pk]) + f"?e={base.pk},{bad.pk}"
    for text in (text_of(page.get(address(base, bad))), text_of(page.get(where))):
        assert "<script>window" not in text
        assert "<img src=x" not in text
        assert "&lt;script&gt;window" in text
        assert " style=" not in text


# --- size


def test_queries_and_size_do_not_grow_with_the_evaluations(
    user: Any,
    page: Client,
    base: Evaluation,
    student: Evaluation,
    django_assert_max_num_queries: Any,
) -> None:
    rest = [
        make_evaluation(
            user, make_checkpoint(user, f"m{i}"), base.benchmark, PROBLEMS, samples=2, seed=i
        )
        for i in range(6)
    ]
    problem = base.benchmark.problems.first()
    assert problem is not None
    one = reverse("leaderboard:compare_problem", args=[problem.pk])
    counts = []
    page.get(address(base, student))  # the scores are read anew
    for chosen in ((base, student), (base, student, *rest)):
        with django_assert_max_num_queries(14) as captured:
            response = page.get(address(*chosen, more="&x"))
        assert len(response.content) < 300_000
        with django_assert_max_num_queries(12) as also:
            page.get(one + f"?e={','.join(str(each.pk) for each in chosen)}")
        counts.append((len(captured), len(also)))
    two, eight = counts
    assert two[1] == eight[1]
    assert 0 <= two[0] - eight[0] <= 3  # beside eight there is nothing to be added

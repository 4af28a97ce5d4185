"""Comparisons: the same figures as the command line's, few queries, and words that warn."""

from __future__ import annotations

import csv
import io
import json
import re
import uuid
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from evaluator import comparison as command_line
from evaluator.protocol import PRESETS
from evaluator.records import Outcome
from tests.webapp.samples import (
    HOSTILE,
    arithmetic,
    make_benchmark,
    make_checkpoint,
    make_evaluation,
    make_run,
    plain_draw,
)
from webapp.leaderboard import compare, costs, heatmap
from webapp.leaderboard.compare_charts import tokens_figure
from webapp.runs.models import Evaluation, LedgerEntry

pytestmark = pytest.mark.django_db
PROBLEMS = arithmetic(30)


@pytest.fixture(autouse=True)
def _store(settings: Any, tmp_path: Any) -> None:
    settings.MEDIA_ROOT = tmp_path


@pytest.fixture
def page(user: Any) -> Client:
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def base(user: Any) -> Evaluation:
    benchmark = make_benchmark(PROBLEMS)
    checkpoint = make_checkpoint(user, "base")
    return make_evaluation(user, checkpoint, benchmark, PROBLEMS, draw=plain_draw(0.3), seed=1)


@pytest.fixture
def student(user: Any, base: Evaluation) -> Evaluation:
    checkpoint = make_checkpoint(user, "student", parent=base.checkpoint)
    return make_evaluation(
        user, checkpoint, base.benchmark, PROBLEMS, draw=plain_draw(0.8), seed=2, samples=8
    )


def compared(*evaluations: Evaluation, base: int | None = None) -> compare.Comparison:
    found, gone = compare.find([each.pk for each in evaluations])
    assert not gone
    return compare.compare(found, compare.baseline_of(found, base))


def address(*evaluations: Evaluation, more: str = "") -> str:
    keys = ",".join(str(each.pk) for each in evaluations)
    return f"{reverse('leaderboard:compare')}?e={keys}{more}"


def text_of(response: Any) -> str:
    assert response.status_code == 200
    return str(response.content.decode())


# --- figures


def test_figures_are_those_of_the_command_line(
    base: Evaluation, student: Evaluation, tmp_path: Any
) -> None:
    for name, each in (("base", base), ("student", student)):
        (tmp_path / f"{name}.json").write_text(json.dumps(each.metrics))
    expected = command_line.compare(tmp_path / "student.json", tmp_path / "base.json")
    found = compared(base, student)
    scores = {score.side.name: score for score in found.scores}
    assert scores["base"].contrast is None
    contrast = scores["student"].contrast
    assert contrast is not None
    assert contrast.paired == expected.paired
    assert (scores["student"].value, scores["base"].value) == pytest.approx(expected.values)
    for each in (base, student):
        assert each.metrics is not None
        score = scores[each.checkpoint.name]  # type: ignore[union-attr]
        assert score.value == pytest.approx(each.metrics["pass@1"]["value"])
        assert score.low == pytest.approx(each.metrics["pass@1"]["low"])
        assert score.tokens == pytest.approx(each.metrics["tokens"]["mean"])


def test_curves_are_those_of_the_metrics(base: Evaluation, student: Evaluation) -> None:
    curves = compare.curves(compared(base, student))
    for letter, each in (("A", base), ("B", student)):
        assert each.metrics is not None
        for name in ("pass@k", "cons@k"):
            expected = {int(k): v for k, v in each.metrics[name].items() if v is not None}
            assert dict(curves[name][letter]) == pytest.approx(expected)


def test_groups_are_those_of_the_metrics(base: Evaluation, student: Evaluation) -> None:
    found = dict(compare.groups(compared(base, student)))
    assert set(found) == {"level", "subject"}
    for name, members in found.items():
        for group in members:
            for each, (_, value, low, high) in zip((base, student), group.scores, strict=True):
                assert each.metrics is not None
                expected = each.metrics["by"][name][group.name]
                assert group.problems == expected["problems"]
                assert (value, low, high) == pytest.approx(
                    (expected["value"], expected["low"], expected["high"])
                )


def test_cells_are_counts_of_rows_and_changes_sum_to_the_difference(
    base: Evaluation, student: Evaluation
) -> None:
    found = compared(base, student)
    rows = heatmap.rows(found)
    assert [row.problem.problem_id for row in rows] == [problem.id for problem in PROBLEMS]
    for row in rows:
        for cell, each in zip(row.cells, (base, student), strict=True):
            own = each.completions.filter(problem__problem_id=row.problem.problem_id)
            assert cell.tally.scored == own.count() == each.samples
            assert cell.tally.correct == own.filter(outcome="correct").count()
    contrast = found.scores[1].contrast
    assert contrast is not None
    changes = [row.cells[1].change or 0.0 for row in rows]
    assert sum(changes) / len(rows) == pytest.approx(contrast.paired.difference)
    assert len(heatmap.rows(found, "wins")) == contrast.wins
    assert len(heatmap.rows(found, "losses")) == contrast.losses
    assert len(heatmap.rows(found, "changes")) == contrast.wins + contrast.losses
    best = heatmap.rows(found, sort="gain")[0].cells[1].change
    assert best == max(changes)


def test_the_frontier_holds_what_nothing_beats_in_both(
    user: Any, base: Evaluation, student: Evaluation
) -> None:
    worse = make_evaluation(
        user, make_checkpoint(user, "worse"), base.benchmark, PROBLEMS, draw=plain_draw(0.1)
    )
    scores = compared(base, student, worse).scores
    for score in scores:
        beaten = any(
            (other.value or 0) >= (score.value or 0) and (other.tokens or 0) <= (score.tokens or 0)
            and (other.value, other.tokens) != (score.value, score.tokens)
            for other in scores
        )  # fmt: skip
        assert score.on_frontier != beaten
    figure = tokens_figure(scores)
    assert figure is not None
    assert len(figure["data"]) == 1 + len(scores)


# --- which baseline, which problems


def test_the_parent_is_the_baseline_and_joins_a_lone_student(
    page: Client, base: Evaluation, student: Evaluation
) -> None:
    assert compared(student, base).baseline.evaluation == base
    assert compared(base, student, base=student.pk).baseline.evaluation == student
    text = text_of(page.get(address(student)))
    assert "2 evaluations compared" in text
    assert re.search(r'A</b> <a [^>]*>base</a> <span class="tag">baseline', text)


def test_a_parent_that_is_not_chosen_is_offered_first(
    user: Any, page: Client, base: Evaluation, student: Evaluation
) -> None:
    for i, name in enumerate(("newer", "newest")):
        make_evaluation(
            user, make_checkpoint(user, name), base.benchmark, PROBLEMS, samples=1, seed=i
        )
    newest = Evaluation.objects.get(checkpoint__name="newest")
    assert compare.others([student, newest])[0] == base
    assert "parent: base on Arithmetic" in text_of(page.get(address(student, newest)))


def test_an_evaluation_without_a_measured_parent_asks_for_another(
    page: Client, base: Evaluation, student: Evaluation
) -> None:
    text = text_of(page.get(address(base)))
    assert "its parent was not measured" in text
    assert f'type="checkbox" name="e" value="{student.pk}"' in text


def test_only_shared_problems_are_compared_and_that_is_said(
    user: Any, page: Client, base: Evaluation
) -> None:
    fewer = make_benchmark(PROBLEMS[10:], "custom", "A part")
    part = make_evaluation(user, make_checkpoint(user, "part"), fewer, PROBLEMS[10:], seed=3)
    found = compared(base, part)
    assert len(found.problems) == 20
    assert not found.is_whole
    assert not compare.curves(found)["cons@k"]
    assert base.metrics is not None
    own = {row["id"]: row["correct"] / row["n"] for row in base.metrics["per_problem"]}
    expected = sum(own[problem.id] for problem in PROBLEMS[10:]) / 20
    assert found.scores[0].value == pytest.approx(expected)
    text = text_of(page.get(address(base, part)))
    assert "Only the 20 problems that all of them share are compared; left out are 10 of A." in text
    assert "B was measured otherwise than the baseline A (problems)" in text


def test_evaluations_without_a_shared_problem_say_so(
    user: Any, page: Client, base: Evaluation
) -> None:
    others = arithmetic(60)[40:]
    elsewhere = make_benchmark(others, "custom", "Others")
    apart = make_evaluation(user, make_checkpoint(user, "apart"), elsewhere, others)
    text = text_of(page.get(address(base, apart)))
    assert "share no problem" in text
    assert "They share no problem." in text


def test_another_protocol_is_named_field_by_field(
    user: Any, page: Client, base: Evaluation
) -> None:
    greedy = make_evaluation(
        user, make_checkpoint(user, "greedy"), base.benchmark, PROBLEMS, samples=1,
        protocol=PRESETS["greedy"],
    )  # fmt: skip
    text = text_of(page.get(address(base, greedy)))
    assert "B was measured otherwise than the baseline A (sampling." in text


def test_an_incomplete_side_is_shown_and_compared_with_nothing(
    user: Any, page: Client, base: Evaluation
) -> None:
    def broken(rng: Any, problem: Any, sample: int) -> Any:
        lost = problem.id == "sum-003"
        return "x", Outcome.ENGINE_ERROR if lost else Outcome.CORRECT, None, ""

    bad = make_evaluation(user, make_checkpoint(user, "bad"), base.benchmark, PROBLEMS, draw=broken)
    found = compared(base, bad)
    assert found.scores[1].value is None
    assert found.scores[1].contrast is None
    assert "B is incomplete" in text_of(page.get(address(base, bad)))


def test_an_incomplete_side_takes_no_problem_from_the_others(
    user: Any, page: Client, base: Evaluation
) -> None:
    """It holds 3 of 30 problems, of which the others would else be compared on three."""
    two = [
        make_evaluation(
            user,
            make_checkpoint(user, name),
            base.benchmark,
            PROBLEMS,
            draw=plain_draw(0.8),
            seed=n,
        )
        for n, name in ((4, "two"), (5, "three"))
    ]
    part = make_evaluation(user, make_checkpoint(user, "part"), base.benchmark, PROBLEMS, seed=6)
    part.completions.exclude(problem__position__lt=3).delete()
    assert part.metrics is not None
    part.metrics["complete"] = False
    part.save()
    alone, found = compared(base, *two), compared(base, part, *two)
    assert len(found.problems) == 30
    assert found.is_whole
    assert {n: c.paired for n, c in zip("CD", alone.contrasts.values(), strict=True)} == {
        letter: contrast.paired for letter, contrast in found.contrasts.items()
    }
    assert [c.compared for c in found.contrasts.values()] == [2, 2]
    assert not any("Only the" in sentence for sentence in found.sentences)
    for more in ("", "&sort=hardest", "&show=changes&sort=loss"):
        text = text_of(page.get(address(base, part, *two, more=more)))
        assert "over the 2 comparisons on this page" in text
    assert "not drawn" in text_of(page.get(address(base, part, *two)))
    csv_text = text_of(
        page.get(f"{reverse('leaderboard:compare_problems_csv')}?e={base.pk},{part.pk}")
    )
    assert len(csv_text.splitlines()) == 31


def test_what_comes_next_claims_no_more_than_the_scores_tell(
    user: Any, page: Client, base: Evaluation, student: Evaluation
) -> None:
    assert "No score here is higher than that of" in text_of(page.get(address(base, student)))
    assert "has the highest score" not in text_of(page.get(address(base, student)))
    for each in (base, student):
        assert each.metrics is not None
        each.metrics["complete"] = False
        each.save()
    text = text_of(page.get(address(base, student)))
    assert "No score here" not in text
    assert "<h2>Next</h2>" not in text


def test_unlike_numbers_of_samples_are_a_warning_and_leave_no_interval(
    page: Client, base: Evaluation, student: Evaluation
) -> None:
    assert base.samples != student.samples
    (contrast,) = compared(base, student).contrasts.values()
    assert not contrast.paired.same_n
    assert contrast.paired.low is contrast.paired.high is None
    text = text_of(page.get(address(base, student)))
    assert "B and the baseline A have unlike numbers of samples" in text


def test_what_cannot_be_separated_is_said_in_words(user: Any, page: Client, base: Any) -> None:
    twin = make_evaluation(
        user, make_checkpoint(user, "twin"), base.benchmark, PROBLEMS, draw=plain_draw(0.3), seed=9
    )
    text = text_of(page.get(address(base, twin)))
    assert re.search(r"cannot separate these two \(p = [\d.]+\); a true difference of", text)


def spend(evaluation: Evaluation, kind: str, **amounts: float) -> None:
    """One lease of a stage of this evaluation's run took so much."""
    now = timezone.now()
    stage = evaluation.stages.first() if kind == "evaluate" else None
    run = evaluation.run if stage else evaluation.checkpoint.produced_by  # type: ignore[union-attr]
    LedgerEntry.objects.create(
        lease_token=uuid.uuid4(), user=evaluation.run.owner, run=run, stage=stage, kind=kind,
        worker="w", ended="finished", started_at=now, ended_at=now, wall_seconds=1, lost_share=0,
        prompt_tokens=0, completion_tokens=500, asks_endpoint=False,
        **{"device_seconds": 0, "cpu_seconds": 0, **amounts},
    )  # fmt: skip


def test_cost_is_that_of_the_ledger_and_per_point_gained(
    user: Any, page: Client, base: Evaluation, student: Evaluation, settings: Any
) -> None:
    settings.RETORT_DEVICE_HOUR_PRICE = 3.0
    checkpoint = student.checkpoint
    assert checkpoint is not None
    checkpoint.produced_by = make_run(user, "d", "distillation", config={"decontaminate": True})
    checkpoint.save()
    spend(student, "generate", device_seconds=7200)
    spend(student, "train", device_seconds=3600)
    spend(student, "evaluate", cpu_seconds=60)
    found = compared(base, student)
    (row,) = costs.costs(found)
    assert row.side.name == "student"
    assert row.cost.making.spent.device_hours == 3
    assert row.per_point is not None
    contrast = found.scores[1].contrast
    assert contrast is not None
    assert row.per_point.device_hours == pytest.approx(3 / (100 * contrast.paired.difference))
    assert row.per_point.money == pytest.approx(3 * (row.per_point.device_hours or 0))
    text = text_of(page.get(address(base, student)))
    assert "What it cost" in text
    assert f"{row.per_point.money:.2f} USD" in text
    backwards = compared(base, student, base=student.pk)
    assert costs.costs(backwards)[0].per_point is None, "the base gained nothing over its student"


def test_a_gain_that_may_be_chance_has_no_price(user: Any, base: Evaluation) -> None:
    """Half a point more of 30 problems would else make eight hours cost sixteen a point."""
    twin = make_checkpoint(user, "twin", parent=base.checkpoint)
    twin.produced_by = make_run(user, "d", "distillation", config={"decontaminate": True})
    twin.save()
    chance = make_evaluation(
        user, twin, base.benchmark, PROBLEMS, draw=plain_draw(0.34), seed=6, samples=base.samples
    )
    spend(chance, "train", device_seconds=8 * 3600)
    found = compared(base, chance)
    (contrast,) = found.contrasts.values()
    assert contrast.paired.difference > 0
    assert not contrast.significant
    (row,) = costs.costs(found)
    assert row.cost.making.spent.device_hours == 8
    assert row.per_point is None


def test_a_price_per_point_that_is_not_whole_says_at_least(
    user: Any, page: Client, base: Evaluation, student: Evaluation, settings: Any
) -> None:
    settings.RETORT_CPU_HOUR_PRICE, settings.RETORT_DEVICE_HOUR_PRICE = 3.0, None
    checkpoint = student.checkpoint
    assert checkpoint is not None
    checkpoint.produced_by = make_run(user, "d", "distillation", config={"decontaminate": True})
    checkpoint.save()
    spend(student, "train", cpu_seconds=3600)
    (row,) = costs.costs(compared(base, student))
    assert not row.cost.making.is_at_least
    text = text_of(page.get(address(base, student)))
    assert "at least</abbr>" not in text
    spend(student, "generate", device_seconds=60)  # whose price is not known
    (row,) = costs.costs(compared(base, student))
    assert row.cost.making.is_at_least
    assert row.per_point is not None
    text = text_of(page.get(address(base, student)))
    assert re.search(rf"at least</abbr> {row.per_point.money:.2f} USD", text)


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
    for chosen in ((base, student), (base, student, *rest)):
        with django_assert_max_num_queries(14) as captured:
            response = page.get(address(*chosen, more="&x"))
        assert len(response.content) < 300_000
        with django_assert_max_num_queries(12) as also:
            page.get(one + f"?e={','.join(str(each.pk) for each in chosen)}")
        counts.append((len(captured), len(also)))
    two, eight = counts
    assert two[1] == eight[1]
    assert two[0] - eight[0] in (0, 1)  # beside eight there is nothing to be added

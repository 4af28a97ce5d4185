"""Comparisons: the same figures as the command line's, on what is shared, and words that warn."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from evaluator import comparison as command_line
from evaluator.protocol import PRESETS
from evaluator.records import Outcome
from tests.webapp.leaderboard.comparing import PROBLEMS, address, compared
from tests.webapp.samples import (
    arithmetic,
    make_benchmark,
    make_checkpoint,
    make_evaluation,
    plain_draw,
    text_of,
)
from webapp.benchmarks.models import Problem
from webapp.leaderboard import compare, heatmap
from webapp.leaderboard.compare_charts import tokens_figure
from webapp.runs.models import Completion, Evaluation

pytestmark = pytest.mark.django_db


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
    assert compare.others(user, [student, newest])[0] == base
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


def test_the_hardest_problem_is_one_that_was_tried(base: Evaluation, student: Evaluation) -> None:
    first, second = Problem.objects.filter(benchmark=base.benchmark).order_by("position")[:2]
    errors = Completion.objects.filter(problem=first)  # nobody has a scored sample of it
    errors.update(outcome="engine_error")
    base.completions.filter(problem=second).update(outcome="engine_error")  # one of them has
    for each in (base, student):
        assert each.metrics is not None
        each.metrics["complete"] = False
        each.save()
    rows = heatmap.rows(compared(base, student), sort="hardest")
    assert rows[-1].problem.pk == first.pk

    def share(row: heatmap.Row) -> float:
        known = [cell.tally.share for cell in row.cells if cell.tally]
        tried = [each for each in known if each is not None]
        return sum(tried) / len(tried)

    shares = [share(row) for row in rows[:-1]]
    assert shares == sorted(shares)


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
    assert "Each interval holds" not in text


def test_what_cannot_be_separated_is_said_in_words(user: Any, page: Client, base: Any) -> None:
    twin = make_evaluation(
        user, make_checkpoint(user, "twin"), base.benchmark, PROBLEMS, draw=plain_draw(0.3), seed=9
    )
    text = text_of(page.get(address(base, twin)))
    assert "Each interval holds for its comparison alone. An interval allows for" in text
    assert re.search(r"cannot separate these two \(p = [\d.]+\); a true difference of", text)

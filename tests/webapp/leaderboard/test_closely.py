"""Looking closely: the problems, one sample, its text in parts; and hostile text stays text."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from evaluator.protocol import PRESETS
from evaluator.records import Outcome
from tests.webapp.samples import (
    HOSTILE,
    arithmetic,
    make_benchmark,
    make_checkpoint,
    make_evaluation,
    plain_draw,
    text_of,
)
from webapp.leaderboard import closely, texts
from webapp.leaderboard.closely import Wanted
from webapp.leaderboard.models import Dispute
from webapp.runs import files
from webapp.runs.models import Completion, Evaluation

pytestmark = pytest.mark.django_db
PROBLEMS = arithmetic(12)


@pytest.fixture
def pair(user: Any) -> tuple[Evaluation, Evaluation]:
    """A base's evaluation and its student's."""
    benchmark = make_benchmark(PROBLEMS)
    base = make_checkpoint(user, "base")
    student = make_checkpoint(user, "student", parent=base)
    return (
        make_evaluation(user, base, benchmark, PROBLEMS, samples=8, draw=plain_draw(0.3), seed=1),
        make_evaluation(user, student, benchmark, PROBLEMS, samples=8, seed=2),
    )


def sample_address(found: Evaluation, completion: Completion) -> str:
    address = reverse("leaderboard:problem", args=[found.pk, completion.problem_id])
    return f"{address}?sample={completion.sample}"


# --- the problems


def test_the_change_is_that_of_the_same_problems_and_marked_where_measured_otherwise(
    user: Any, page: Client, pair: tuple[Evaluation, Evaluation]
) -> None:
    base, student = pair
    assert closely.problem_table(user, student, Wanted(), None).parent_differs is None
    assert base.checkpoint is not None
    ids = [replace(new, id=old.id) for new, old in zip(arithmetic(24)[12:], PROBLEMS, strict=True)]
    version = make_benchmark(ids, title="Arithmetic, another version")
    grown = make_checkpoint(user, "grown", parent=base.checkpoint)
    alone = closely.problem_table(user, make_evaluation(user, grown, version, ids), Wanted(), None)
    assert alone.parent is None, "the parent has other problems under these ids"
    assert [row.change for row in alone.rows] == [None] * 12
    greedy = make_evaluation(
        user, grown, base.benchmark, PROBLEMS, samples=1, protocol=PRESETS["greedy"]
    )
    table = closely.problem_table(user, greedy, Wanted(), None)
    assert table.parent == base
    assert table.parent_differs
    for found, marked in ((greedy, True), (student, False)):
        text = text_of(page.get(found.get_absolute_url()))
        assert ("was measured otherwise (sampling." in text) == marked


def test_a_row_tells_what_a_count_by_hand_gives(
    user: Any, pair: tuple[Evaluation, Evaluation]
) -> None:
    base, student = pair
    table = closely.problem_table(user, student, Wanted(), None)
    assert table.parent == base
    assert [row.problem_id for row in table.rows] == [problem.id for problem in PROBLEMS]
    for row in table.rows:
        drawn = list(student.completions.filter(problem=row.pk).order_by("sample"))
        assert list(row.outcomes) == [each.outcome for each in drawn]
        right = sum(each.outcome == "correct" for each in drawn)
        before = base.completions.filter(problem=row.pk, outcome="correct").count()
        assert row.right == right
        assert row.change == pytest.approx((right - before) / 8)
        assert row.gold == PROBLEMS[row.position].answer
        answers = [each.answer for each in drawn if each.answer is not None]
        assert row.votes == max((answers.count(answer) for answer in answers), default=None)
        assert row.vote_share == pytest.approx(max(map(answers.count, answers)) / 8)
        if right > 4:
            assert (row.majority, row.majority_word) == (row.gold, "right")


@pytest.mark.parametrize("sort", closely.SORTS)
@pytest.mark.parametrize("show", closely.SHOWS)
def test_filters_show_what_they_say_and_sorting_loses_nothing(
    sort: str, show: str, pair: tuple[Evaluation, Evaluation], user: Any
) -> None:
    _, student = pair
    first = student.completions.order_by("problem__position", "sample")[0]
    Dispute.objects.create(
        evaluation=student, problem_id=first.problem_id, sample=0, claim="wrong", reason="r",
        outcome=first.outcome, author=user,
    )  # fmt: skip
    everything = closely.problem_table(user, student, Wanted(), None).rows
    found = closely.problem_table(user, student, Wanted(sort=sort, show=show), None).rows
    expected = {
        "": lambda row: True,
        "mixed": lambda row: len(set(row.outcomes)) > 1 and "correct" in row.outcomes,
        "outvoted": lambda row: "correct" in row.outcomes and row.consensus == 0,
        "changed": lambda row: row.change != 0,
        "disputed": lambda row: row.pk == first.problem_id,
    }.get(show, lambda row: show in row.outcomes)
    assert {row.pk for row in found} == {row.pk for row in everything if expected(row)}
    keys = {
        "hardest": [row.right for row in found],
        "easiest": [-row.right for row in found],
        "split": [row.vote_share or 0 for row in found],
        "change": [-abs(row.change or 0) for row in found],
    }.get(sort, [row.position for row in found])
    assert keys == sorted(keys)


@pytest.mark.parametrize("graded", [True, False])
@pytest.mark.parametrize("sort", ["hardest", "easiest"])
def test_a_problem_without_a_scored_sample_is_neither_hard_nor_easy(
    sort: str, graded: bool, pair: tuple[Evaluation, Evaluation], user: Any
) -> None:
    _, student = pair
    own = student.completions.order_by("problem__position", "sample")
    keys, n = list(own.values_list("pk", flat=True)), student.samples
    # Of the first problem no sample is scored, of the second one is, and right.
    own.model.objects.filter(pk__in=keys[: 2 * n - 1]).update(outcome="engine_error")
    own.model.objects.filter(pk=keys[2 * n - 1]).update(outcome="correct")
    assert student.metrics is not None
    if graded:
        student.metrics["per_problem"][0] |= {"n": 0, "correct": 0}
        student.metrics["per_problem"][1] |= {"n": 1, "correct": 1}
    else:
        student.metrics = None
    student.save()
    found = closely.problem_table(user, student, Wanted(sort=sort), None).rows
    assert found[-1].position == 0
    shares = [row.share for row in found[:-1] if row.share is not None]
    assert len(shares) == len(found) - 1
    assert shares == sorted(shares, reverse=sort == "easiest")


def test_subject_and_level_narrow_it_down(
    user: Any, pair: tuple[Evaluation, Evaluation], page: Client
) -> None:
    _, student = pair
    table = closely.problem_table(user, student, Wanted(subject="sums", level="2"), None)
    wanted = {p.id for p in PROBLEMS if p.subject == "sums" and p.level == "2"}
    assert {row.problem_id for row in table.rows} == wanted
    assert table.levels == ["1", "2", "3"]
    nothing = text_of(page.get(student.get_absolute_url() + "?subject=none"))
    assert "No problem is like that here." in nothing
    odd = page.get(student.get_absolute_url() + "?sort=x&show=%00&page=x&level=" + "9" * 99)
    assert odd.status_code == 200


def test_a_finished_evaluation_offers_what_comes_next(
    pair: tuple[Evaluation, Evaluation], page: Client
) -> None:
    base, student = pair
    text = text_of(page.get(student.get_absolute_url()))
    assert "Compare with base" in text
    for address in (
        f"{reverse('leaderboard:compare')}?e={student.pk}",
        reverse("leaderboard:reports", args=[student.pk]),
        f"{reverse('runs:evaluate')}?checkpoint={student.checkpoint_id}",
    ):
        assert f'href="{address}"' in text
        assert page.get(address).status_code == 200
    assert ">Compare</a>" in text_of(page.get(base.get_absolute_url()))


@pytest.mark.django_db
def test_a_large_evaluation_is_a_light_page_of_few_queries(
    user: Any, page: Client, django_assert_max_num_queries: Any
) -> None:
    problems = arithmetic(500)
    benchmark = make_benchmark(problems)
    base = make_checkpoint(user, "base")
    small = make_evaluation(user, base, benchmark, problems, samples=1)
    large = make_evaluation(
        user, make_checkpoint(user, "m", parent=base), benchmark, problems, samples=64,
        draw=plain_draw(0.5),
    )  # fmt: skip
    counts = []
    for found in (small, large):
        with django_assert_max_num_queries(17) as captured:
            response = page.get(found.get_absolute_url())
        counts.append(len(captured))
        assert len(response.content) < 300_000
    assert counts[1] - counts[0] <= 1  # the parent's
    first = large.completions.order_by("problem__position", "sample")[0]
    with django_assert_max_num_queries(12):
        response = page.get(sample_address(large, first))
    assert len(response.content) < 120_000


# --- one sample


def test_stepping_walks_through_every_sample_once(pair: tuple[Evaluation, Evaluation]) -> None:
    _, student = pair
    order = list(
        student.completions.order_by("problem__position", "sample").values_list(
            "problem_id", "sample", "outcome"
        )
    )
    keys = [(problem, sample) for problem, sample, _ in order]
    wrong = [(problem, sample) for problem, sample, outcome in order if outcome != "correct"]
    for at in (0, 1, 7, 8, len(keys) - 1):
        around = closely.sample_view(student, *keys[at]).around
        assert around["next"] == (keys[at + 1] if at + 1 < len(keys) else None)
        assert around["previous"] == (keys[at - 1] if at else None)
        later = [key for key in wrong if keys.index(key) > at]
        earlier = [key for key in wrong if keys.index(key) < at]
        assert around["next_wrong"] == (later[0] if later else None)
        assert around["previous_wrong"] == (earlier[-1] if earlier else None)


def test_a_sample_says_why_it_was_graded_so(
    pair: tuple[Evaluation, Evaluation], page: Client
) -> None:
    _, student = pair
    wrong = student.completions.filter(outcome="wrong")[0]
    text = text_of(page.get(sample_address(student, wrong)))
    top = text[text.index('class="pinned"') : text.index("</nav>", text.index('class="pinned"'))]
    assert f"<code>{wrong.answer}</code>" in top
    assert f"reference <code>{wrong.problem.answer}</code>" in top
    assert "wrong</span>" in top
    for words in ("other integers", "integer/", "Final answer, drawn", "Copy response"):
        assert words in text
    assert f"\\({wrong.answer}\\)" in text


def long_draw(rng: Any, problem: Any, sample: int) -> Any:
    thoughts = "".join(f"step {i} é " for i in range(9000))
    return f"<think>{thoughts}</think>" + HOSTILE * 900, Outcome.WRONG, HOSTILE, HOSTILE


def test_endless_texts_come_in_parts_that_make_the_whole(user: Any, page: Client) -> None:
    found = make_evaluation(
        user, make_checkpoint(user, "m"), make_benchmark(PROBLEMS[:2]), PROBLEMS[:2],
        samples=1, draw=long_draw,
    )  # fmt: skip
    completion = found.completions.all()[0]
    row = files.completion_text(completion)
    response = page.get(sample_address(found, completion))
    assert len(response.content) < 200_000
    text = text_of(response)
    assert "<script>window" not in text
    assert "&lt;script&gt;window" in text
    for which in ("thinking", "answer"):
        address = reverse(
            "leaderboard:part", args=[found.pk, completion.problem_id, completion.sample, which]
        )
        whole = text_of(page.get(address + "?all=yes"))
        parts, start = [], 0
        while True:
            shown = page.get(f"{address}?from={start}")
            assert "<script>window" not in text_of(shown)
            found_text = re.search(r"data-maths>(.*?)</div>", text_of(shown), re.DOTALL)
            assert found_text is not None
            parts.append(found_text[1])
            start += texts.PART_CHARACTERS
            if "Show more" not in text_of(shown):
                break
        from html import unescape

        assert unescape("".join(parts)) == whole
        assert whole in row["text"]
    assert page.get(address.replace("answer", "other")).status_code == 404
    assert page.get(address + "?from=99999999").status_code == 200


def test_the_raw_text_is_never_a_page(user: Any, page: Client) -> None:
    found = make_evaluation(
        user, make_checkpoint(user, "m"), make_benchmark(PROBLEMS[:1]), PROBLEMS[:1],
        samples=1, draw=long_draw,
    )  # fmt: skip
    completion = found.completions.all()[0]
    address = reverse("leaderboard:raw", args=[found.pk, completion.problem_id, 0])
    for query in ("", "?as=json"):
        response = page.get(address + query)
        assert response["content-type"] == "text/plain; charset=utf-8"
        assert response["x-content-type-options"] == "nosniff"
        assert "default-src" in response["content-security-policy"]
    assert text_of(page.get(address)) == files.completion_text(completion)["text"]
    assert page.get(reverse("leaderboard:raw", args=[found.pk, 10**6, 0])).status_code == 404
    assert Client().get(address).status_code == 302


def test_a_programs_tests_are_cells(user: Any, page: Client) -> None:
    found = make_evaluation(
        user, make_checkpoint(user, "m"), make_benchmark(PROBLEMS[:1]), PROBLEMS[:1], samples=1
    )
    test = {"name": "7", "verdict": "WA", "cpu_seconds": 0.1, "memory_bytes": 1}
    judged = {"verdict": "WA", "language": "cpp", "isolation": "bubblewrap", "passed": 6,
              "tests": 9, "test": test, "cpu_seconds": 0.2, "memory_bytes": 2}  # fmt: skip
    found.completions.update(judged=judged, answer="int main() {}")
    text = text_of(page.get(sample_address(found, found.completions.all()[0])))
    cells = re.findall(r'<rect class="t-(\w+)"', text)
    assert cells == ["correct"] * 6 + ["wrong"] + ["none"] * 2
    assert 'aria-label="6 of 9 tests passed, one failed"' in text

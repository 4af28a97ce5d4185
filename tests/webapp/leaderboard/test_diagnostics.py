"""Diagnostics of an evaluation: the database's counts against counts made by hand."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from evaluator.diagnostics import diagnose
from evaluator.protocol import Protocol
from evaluator.records import FinishReason, Outcome
from tests.webapp.samples import (
    arithmetic,
    make_benchmark,
    make_checkpoint,
    make_evaluation,
    plain_draw,
)
from webapp.leaderboard.diagnostics import diagnostics
from webapp.runs.models import Completion, Evaluation

pytestmark = pytest.mark.django_db
PROBLEMS = arithmetic(20)


def evaluated(user: Any, draw: Any = None, samples: int = 8) -> Evaluation:
    benchmark = make_benchmark(PROBLEMS)
    return make_evaluation(
        user, make_checkpoint(user, "m"), benchmark, PROBLEMS, samples=samples, draw=draw
    )


def varied_draw(rng: Any, problem: Any, sample: int) -> Any:
    text, outcome, answer, reason = plain_draw(0.5)(rng, problem, sample)
    if rng.random() < 0.1:
        return "", Outcome.GRADER_ERROR, None, "the grader died"
    return text + "." * rng.randint(0, 20_000), outcome, answer, reason


def test_lengths_are_what_a_count_by_hand_gives(user: Any) -> None:
    found = evaluated(user, varied_draw)
    Completion.objects.filter(evaluation=found, sample=7).update(completion_tokens=None)
    shown = diagnostics(found)
    assert shown is not None
    scored = [c for c in found.completions.all() if c.outcome != Outcome.GRADER_ERROR]
    counted = [c for c in scored if c.completion_tokens is not None]
    lengths = shown.lengths
    assert lengths.counted == len(counted)
    assert lengths.uncounted == len(scored) - len(counted)
    for bin_ in lengths.bins:
        inside = [c for c in counted if bin_.first <= (c.completion_tokens or 0) <= bin_.last]
        assert bin_.completions == len(inside)
        right = sum(c.outcome == Outcome.CORRECT for c in inside)
        assert bin_.right_share == pytest.approx(right / len(inside))
    assert sum(b.completions for b in lengths.bins) == len(counted)
    tokens: dict[bool, list[int]] = defaultdict(list)
    by_problem: dict[int, dict[bool, list[int]]] = defaultdict(lambda: defaultdict(list))
    for c in counted:
        tokens[c.outcome == Outcome.CORRECT].append(c.completion_tokens or 0)
        by_problem[c.problem_id][c.outcome == Outcome.CORRECT].append(c.completion_tokens or 0)
    assert lengths.median_right == statistics.median(tokens[True])
    assert lengths.median_other == statistics.median(tokens[False])
    logs = [
        math.log(statistics.fmean(kinds[True]) / statistics.fmean(kinds[False]))
        for kinds in by_problem.values()
        if len(kinds) == 2
    ]
    assert logs
    assert lengths.mixed_problems == len(logs)
    assert lengths.ratio == pytest.approx(math.exp(statistics.fmean(logs)))


def test_the_database_counts_what_memory_counts(user: Any) -> None:
    """A page's diagnostics and a command line report's, of the same completions."""
    found = evaluated(user, varied_draw)
    Completion.objects.filter(evaluation=found, sample=7).update(completion_tokens=None)
    rows = [
        {
            "problem_id": each.problem_id, "outcome": each.outcome,
            "finish_reason": each.finish_reason, "completion_tokens": each.completion_tokens,
        }
        for each in found.completions.all()
    ]  # fmt: skip
    protocol = Protocol.model_validate(found.protocol)
    here = diagnose(rows, protocol=protocol, engine=found.engine).to_json()
    there = diagnostics(found)
    assert there is not None
    theirs = there.to_json()
    assert here["lengths"].pop("ratio") == pytest.approx(theirs["lengths"].pop("ratio"))
    assert here == theirs


def test_diagnostics_take_four_queries_whatever_the_size(
    user: Any, django_assert_num_queries: Any
) -> None:
    small = evaluated(user, samples=1)
    large = make_evaluation(
        user, make_checkpoint(user, "n"), small.benchmark, PROBLEMS, samples=16, draw=varied_draw
    )
    for found in (small, large):
        with django_assert_num_queries(4):
            diagnostics(found)


def test_the_page_needs_the_same_queries_for_one_sample_and_for_many(
    user: Any, page: Client, django_assert_max_num_queries: Any
) -> None:
    benchmark, counts = make_benchmark(PROBLEMS), []
    for samples in (1, 16):
        checkpoint = make_checkpoint(user, f"m{samples}")
        found = make_evaluation(
            user, checkpoint, benchmark, PROBLEMS, samples=samples, draw=varied_draw
        )
        with django_assert_max_num_queries(17) as captured:
            page.get(found.get_absolute_url())
        counts.append(len(captured))
    assert counts[0] == counts[1]


def cut_draw(rng: Any, problem: Any, sample: int) -> Any:
    if sample == 0:
        return "<think>\nI add and", Outcome.TRUNCATED, None, "stopped by the token limit"
    if sample == 1:
        return "<think>\nso so so so", Outcome.LOOPED, None, "a repetition"
    return f"\\boxed{{{problem.answer}}}", Outcome.CORRECT, problem.answer, "equal integers"


def test_the_page_says_that_completions_were_cut_and_looped(user: Any, page: Client) -> None:
    found = evaluated(user, cut_draw, samples=4)
    text = page.get(found.get_absolute_url()).content.decode()
    assert (
        "25\N{NO-BREAK SPACE}% of completions were truncated at 4 tokens: pass@1 is a lower bound"
        in text
    )
    assert "25\N{NO-BREAK SPACE}% of completions ran in circles" in text
    assert text.count("message bad") == 2
    report = page.get(reverse("leaderboard:report_html", args=[found.pk])).content.decode()
    told = page.get(reverse("leaderboard:report_json", args=[found.pk])).json()["diagnostics"]
    assert len(told["alarms"]) == 2
    for alarm in told["alarms"]:
        assert alarm["sentence"] in report
    assert told["endings"]["looped"] == len(PROBLEMS)
    assert sum(row["completions"] for row in told["lengths"]["bins"]) == 4 * len(PROBLEMS)
    assert "Length against correctness" in report


def test_a_sound_evaluation_raises_no_alarm(user: Any, page: Client) -> None:
    def draw(rng: Any, problem: Any, sample: int) -> Any:
        return f"\\boxed{{{problem.answer}}}", Outcome.CORRECT, problem.answer, "equal integers"

    found = evaluated(user, draw)
    shown = diagnostics(found)
    assert shown is not None
    assert shown.alarms == []
    assert 'class="message' not in page.get(found.get_absolute_url()).content.decode()


def test_an_import_without_counts_says_so_instead_of_an_empty_chart(
    user: Any, page: Client
) -> None:
    found = evaluated(user)
    found.engine = {"name": "replay"}
    found.save()
    found.completions.update(completion_tokens=None, finish_reason=FinishReason.UNKNOWN)
    text = page.get(found.get_absolute_url()).content.decode()
    assert "The imported file holds no token counts" in text
    assert "Length against correctness" not in text
    assert "Why the completions ended is not known" in text


def test_the_hashes_stand_whole_beside_the_scores(user: Any, page: Client) -> None:
    found = evaluated(user)
    text = page.get(found.get_absolute_url()).content.decode()
    top = text[: text.index("<h2>Outcomes</h2>")]
    assert f">{found.measurement_hash}</code>" in top
    assert f">{found.run_fingerprint}</code>" in top


def test_an_evaluation_without_figures_has_no_diagnostics(user: Any, page: Client) -> None:
    found = evaluated(user)
    Evaluation.objects.filter(pk=found.pk).update(metrics=None)
    found.refresh_from_db()
    assert diagnostics(found) is None
    assert page.get(found.get_absolute_url()).status_code == 200

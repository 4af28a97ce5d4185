"""Completions' rows are copied in: what is there stays, an error gives way, and nothing doubles."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from evaluator.records import FinishReason
from tests.webapp.samples import arithmetic, make_benchmark, make_checkpoint, make_run, make_stage
from webapp.benchmarks.models import Benchmark
from webapp.runs import completions
from webapp.runs.models import Completion, Evaluation, Segment, Shard

pytestmark = pytest.mark.django_db
Rows = list[tuple[int, dict[str, Any]]]


@pytest.fixture
def evaluation(user: Any) -> Evaluation:
    benchmark = make_benchmark(arithmetic(4))
    run = make_run(user, "r", "evaluation")
    return Evaluation.objects.create(
        run=run, checkpoint=make_checkpoint(user, "c"), benchmark=benchmark, samples=500,
        protocol={}, measurement_hash="0" * 64,
    )  # fmt: skip


def segment_of(evaluation: Evaluation) -> Segment:
    stage = make_stage(evaluation.run, evaluation.run.stages.count(), "evaluate", "E")
    return Segment.objects.create(
        shard=Shard.objects.create(stage=stage, index=0), name="s", lease_token=uuid.uuid4(),
        sha256="0" * 64, row_count=1, size_bytes=1,
    )  # fmt: skip


def row(problem: int, sample: int, finish: str = "stop", tokens: int | None = 7) -> dict[str, Any]:
    return {
        "problem_id": f"sum-{problem:03d}", "sample": sample, "finish_reason": finish,
        "prompt_tokens": None, "completion_tokens": tokens,
    }  # fmt: skip


def take(evaluation: Evaluation, rows: Rows) -> Segment:
    segment = segment_of(evaluation)
    with transaction.atomic():
        completions.take(evaluation, segment, rows)
    return segment


def kept(evaluation: Evaluation) -> set[tuple[Any, ...]]:
    return set(
        Completion.objects.filter(evaluation=evaluation).values_list(
            "problem__problem_id", "sample", "finish_reason", "completion_tokens", "offset",
            "segment_id", "outcome",
        )
    )  # fmt: skip


def test_a_key_that_is_there_stays_and_only_an_error_gives_way(evaluation: Evaluation) -> None:
    first = take(evaluation, [(0, row(0, 0)), (10, row(0, 1, FinishReason.ERROR, None))])
    later = take(evaluation, [(5, row(0, 0, "length", 9)), (6, row(0, 1, "stop", 8)),
                              (7, row(1, 0, "stop", None))])  # fmt: skip
    assert kept(evaluation) == {
        ("sum-000", 0, "stop", 7, 0, first.pk, ""),
        ("sum-000", 1, "stop", 8, 6, later.pk, ""),
        ("sum-001", 0, "stop", None, 7, later.pk, ""),
    }


def test_of_two_rows_with_one_key_the_first_counts(evaluation: Evaluation) -> None:
    segment = take(evaluation, [(3, row(2, 5)), (9, row(2, 5, "length", 99))])
    assert kept(evaluation) == {("sum-002", 5, "stop", 7, 3, segment.pk, "")}


@pytest.mark.parametrize("finish", ["a\tb", "a\nb", "\\N", "\\."])
def test_no_value_steers_the_copy(evaluation: Evaluation, finish: str) -> None:
    segment = take(evaluation, [(0, row(0, 0, finish)), (1, row(0, 1))])
    assert kept(evaluation) == {
        ("sum-000", 0, finish, 7, 0, segment.pk, ""), ("sum-000", 1, "stop", 7, 1, segment.pk, ""),
    }  # fmt: skip


def test_a_problem_of_another_benchmark_takes_nothing_in(evaluation: Evaluation) -> None:
    Benchmark.objects.create(name="other", title="o", content_hash="1" * 64, problem_count=0)
    with pytest.raises(KeyError):
        take(evaluation, [(0, row(0, 0)), (1, row(77, 0))])
    assert kept(evaluation) == set()


def test_many_rows_take_no_more_statements_than_few(evaluation: Evaluation) -> None:
    taken = {}
    for count, first in ((3, 0), (1000, 100)):
        rows = [(i, row(i % 4, first + i // 4)) for i in range(count)]
        segment = segment_of(evaluation)
        with transaction.atomic(), CaptureQueriesContext(connection) as captured:
            completions.take(evaluation, segment, rows)
        taken[count] = len(captured)
    assert taken[1000] == taken[3] <= 6
    assert Completion.objects.filter(evaluation=evaluation).count() == 1003

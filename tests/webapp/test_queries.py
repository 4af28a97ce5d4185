"""The leaderboard's and the runs' readings: ranks, flags, pace."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from evaluator.protocol import PRESETS
from evaluator.records import Outcome
from tests.webapp.samples import (
    arithmetic,
    make_benchmark,
    make_checkpoint,
    make_evaluation,
    make_run,
    make_stage,
    plain_draw,
)
from webapp.leaderboard import queries as leaderboard
from webapp.runs import queries
from webapp.runs.models import Evaluation, Run, State, TrainingPoint

pytestmark = pytest.mark.django_db
PROBLEMS = arithmetic(40)


@pytest.fixture(autouse=True)
def _store(settings: Any, tmp_path: Any) -> None:
    settings.MEDIA_ROOT = tmp_path


def ranks(benchmark: str) -> dict[str, int | None]:
    return {row.name: row.rank for row in leaderboard.rows(benchmark) if not row.is_published}


def test_equal_models_share_a_rank_and_a_better_one_stands_above(user: Any) -> None:
    benchmark = make_benchmark(PROBLEMS)
    for seed, (name, ability) in enumerate({"best": 0.95, "same": 0.4, "as-good": 0.4}.items()):
        checkpoint = make_checkpoint(user, name)
        make_evaluation(
            user, checkpoint, benchmark, PROBLEMS, samples=8, seed=seed, draw=plain_draw(ability)
        )
    assert ranks("arithmetic") == {"best": 1, "same": 2, "as-good": 2}


def test_incomplete_and_otherwise_measured_rows_have_no_rank(user: Any) -> None:
    def broken(rng: Any, problem: Any, sample: int) -> Any:
        return "", Outcome.ENGINE_ERROR, None, ""

    benchmark = make_benchmark(PROBLEMS)
    for name in ("a", "b"):
        make_evaluation(user, make_checkpoint(user, name), benchmark, PROBLEMS)
    make_evaluation(user, make_checkpoint(user, "broken"), benchmark, PROBLEMS, draw=broken)
    make_evaluation(
        user, make_checkpoint(user, "other"), benchmark, PROBLEMS, protocol=PRESETS["r1"]
    )
    found = ranks("arithmetic")
    assert found["broken"] is None
    assert found["other"] is None
    assert found["a"] == found["b"] == 1


def test_a_row_measured_otherwise_says_in_what(user: Any) -> None:
    benchmark = make_benchmark(PROBLEMS)
    for name in ("a", "b"):
        make_evaluation(user, make_checkpoint(user, name), benchmark, PROBLEMS)
    quick = PRESETS["quick"]
    other = quick.model_copy(
        update={
            "sampling": quick.sampling.model_copy(update={"temperature": 0.0, "max_tokens": 7}),
            "thinking": quick.thinking.model_copy(update={"kind": "none"}),
        }
    )
    make_evaluation(user, make_checkpoint(user, "other"), benchmark, PROBLEMS, protocol=other)
    differs = {row.name: row.differs for row in leaderboard.rows("arithmetic")}
    assert differs["a"] == differs["b"] == ()
    assert differs["other"] == ("sampling.max_tokens", "sampling.temperature", "thinking.kind")


def test_only_the_newest_figure_of_a_checkpoint_counts(user: Any) -> None:
    benchmark = make_benchmark(PROBLEMS)
    checkpoint = make_checkpoint(user, "m")
    make_evaluation(user, checkpoint, benchmark, PROBLEMS, draw=plain_draw(0.1))
    newest = make_evaluation(user, checkpoint, benchmark, PROBLEMS, draw=plain_draw(0.9))
    rows = [row for row in leaderboard.rows("arithmetic") if not row.is_published]
    assert [row.evaluation for row in rows] == [newest]


def test_every_published_row_names_its_source() -> None:
    for tab in leaderboard.tabs():
        for row in leaderboard.rows(tab.name):
            assert row.is_published
            assert row.source
            assert row.value is None or 0 <= row.value <= 1
    deepseek = [r for r in leaderboard.rows("aime_2024") if r.name == "DeepSeek-R1"]
    assert [row.value for row in deepseek] == [0.798]


def test_rows_can_be_sorted(user: Any) -> None:
    for sort in leaderboard.SORTS:
        rows = leaderboard.rows("aime_2024", sort)
        assert len(rows) == len(leaderboard.rows("aime_2024"))
    values = [row.value for row in leaderboard.rows("aime_2024") if row.value is not None]
    assert values == sorted(values, reverse=True)


def test_the_pace_of_a_stage_tells_what_is_left(user: Any) -> None:
    run = make_run(user, "r", Run.Kind.DISTILLATION, State.RUNNING)
    started = timezone.now() - timedelta(seconds=100)
    make_stage(run, 0, "generate", "Draw", state=State.RUNNING, done=25, total=100,
               started_at=started)  # fmt: skip
    make_stage(run, 1, "filter", "Filter", state=State.WAITING)
    view = queries.run_view(run.pk)
    assert view.current is not None
    assert view.current.eta_seconds == pytest.approx(300, rel=0.05)
    assert view.fraction == pytest.approx(0.125)
    assert view.ordinal == 1
    assert not view.is_final


def test_an_evaluation_of_a_running_run_has_the_state_of_its_own_stages(user: Any) -> None:
    benchmark = make_benchmark(PROBLEMS)
    done = make_evaluation(user, make_checkpoint(user, "a"), benchmark, PROBLEMS)
    run = done.run
    waits = Evaluation.objects.create(
        run=run, checkpoint=make_checkpoint(user, "b"), benchmark=benchmark, samples=1,
        protocol=done.protocol, measurement_hash="0" * 64,
    )  # fmt: skip
    make_stage(run, 8, "evaluate", "Evaluate b", state=State.RUNNING, evaluation=waits)
    make_stage(run, 9, "grade", "Grade b", state=State.WAITING, evaluation=waits)
    found = {e.pk: e for e in queries.with_open_stage(Evaluation.objects.all())}
    assert found[done.pk].open_stage_state is None  # type: ignore[attr-defined]
    assert found[waits.pk].open_stage_state == State.RUNNING  # type: ignore[attr-defined]


def test_nothing_is_promised_before_anything_is_done(user: Any) -> None:
    run = make_run(user, "r", Run.Kind.DISTILLATION, State.RUNNING)
    make_stage(run, 0, "generate", "Draw", state=State.RUNNING, done=0, total=100)
    view = queries.run_view(run.pk)
    assert view.current is not None
    assert view.current.eta_seconds is None


def test_a_long_loss_curve_is_thinned_but_keeps_both_ends(user: Any) -> None:
    run = make_run(user, "r", Run.Kind.DISTILLATION)
    train = make_stage(run, 0, "train", "Train")
    steps = 5 * queries.CURVE_POINTS
    TrainingPoint.objects.bulk_create(
        TrainingPoint(stage=train, step=step, values={"loss": 1.0}) for step in range(steps)
    )
    points = queries.loss_curve(queries.run_view(run.pk))
    assert len(points) <= queries.CURVE_POINTS
    assert points[0][0] == 0
    assert points[-1][0] == steps - 1
    gaps = {b[0] - a[0] for a, b in itertools.pairwise(points)}
    assert max(gaps) <= 6

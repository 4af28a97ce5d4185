"""The readings of runs: states and pace."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from tests.webapp.samples import (
    arithmetic,
    make_benchmark,
    make_checkpoint,
    make_evaluation,
    make_run,
    make_stage,
)
from webapp.runs import queries
from webapp.runs.models import Evaluation, Run, State, TrainingPoint

pytestmark = pytest.mark.django_db
PROBLEMS = arithmetic(40)


@pytest.fixture(autouse=True)
def _store(settings: Any, tmp_path: Any) -> None:
    settings.MEDIA_ROOT = tmp_path


def test_the_pace_of_a_stage_tells_what_is_left(user: Any) -> None:
    run = make_run(user, "r", Run.Kind.DISTILLATION, State.RUNNING)
    started = timezone.now() - timedelta(seconds=100)
    make_stage(run, 0, "generate", "Draw", state=State.RUNNING, done=25, total=100,
               started_at=started)  # fmt: skip
    make_stage(run, 1, "filter", "Filter", state=State.WAITING)
    view = queries.run_view(run.pk, user)
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
    view = queries.run_view(run.pk, user)
    assert view.current is not None
    assert view.current.eta_seconds is None


def test_a_long_loss_curve_is_thinned_but_keeps_both_ends(user: Any) -> None:
    run = make_run(user, "r", Run.Kind.DISTILLATION)
    train = make_stage(run, 0, "train", "Train")
    steps = 5 * queries.CURVE_POINTS
    TrainingPoint.objects.bulk_create(
        TrainingPoint(stage=train, step=step, values={"loss": 1.0}) for step in range(steps)
    )
    points = queries.loss_curve(queries.run_view(run.pk, user))
    assert len(points) <= queries.CURVE_POINTS
    assert points[0][0] == 0
    assert points[-1][0] == steps - 1
    gaps = {b[0] - a[0] for a, b in itertools.pairwise(points)}
    assert max(gaps) <= 6

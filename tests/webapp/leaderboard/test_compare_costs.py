"""What a comparison says of costs: the ledger's, and a price for gains told from chance."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client

from tests.webapp.leaderboard.comparing import PROBLEMS, address, compared, spend
from tests.webapp.samples import (
    make_checkpoint,
    make_evaluation,
    make_run,
    plain_draw,
    text_of,
)
from webapp.leaderboard import costs
from webapp.runs.models import Evaluation

pytestmark = pytest.mark.django_db


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
    (row,) = costs.costs(user, found)
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
    assert costs.costs(user, backwards)[0].per_point is None, (
        "the base gained nothing over its student"
    )


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
    (row,) = costs.costs(user, found)
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
    (row,) = costs.costs(user, compared(base, student))
    assert not row.cost.making.is_at_least
    text = text_of(page.get(address(base, student)))
    assert "at least</abbr>" not in text
    spend(student, "generate", device_seconds=60)  # whose price is not known
    (row,) = costs.costs(user, compared(base, student))
    assert row.cost.making.is_at_least
    assert row.per_point is not None
    text = text_of(page.get(address(base, student)))
    assert re.search(rf"at least</abbr> {row.per_point.money:.2f} USD", text)

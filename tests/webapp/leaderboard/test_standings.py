"""Rows are ordered by figures alone, and a page reads its own; ranks have a bound that it tells."""

from __future__ import annotations

from typing import Any

import pytest
from django.http import QueryDict
from django.test import Client

from evaluator.protocol import PRESETS
from tests.webapp.samples import (
    arithmetic,
    make_benchmark,
    make_checkpoint,
    make_evaluation,
    plain_draw,
    text_of,
)
from webapp.leaderboard import board, choice

pytestmark = pytest.mark.django_db
PROBLEMS = arithmetic(10)


@pytest.fixture
def scores(user: Any) -> list[str]:
    """Six checkpoints, each second one measured in two ways; their names, best first."""
    benchmark = make_benchmark(PROBLEMS)
    found: dict[str, float] = {}
    for number in range(6):
        checkpoint = make_checkpoint(user, f"m{number}")
        for preset in ("quick", "greedy")[: 1 + number % 2]:
            made = make_evaluation(
                user, checkpoint, benchmark, PROBLEMS, samples=9, seed=number,
                protocol=PRESETS[preset], draw=plain_draw(0.1 + 0.15 * number),
            )  # fmt: skip
            found.setdefault(checkpoint.name, made.pass_at_1 or 0.0)
    return sorted(found, key=lambda name: (-found[name], name))


def build(user: Any, address: str) -> board.Board:
    return board.build(user, choice.read(QueryDict(f"benchmark=arithmetic&published=no&{address}")))


@pytest.mark.parametrize(
    "sort", ["", "name", "newest", "-newest", "arithmetic:cons@n", "-arithmetic:pass@1", "dtype"]
)
def test_a_page_reads_what_the_whole_holds_in_its_places(
    user: Any, scores: list[str], sort: str
) -> None:
    whole = build(user, f"sort={sort}")
    assert whole.measured == len(whole.rows) == 9
    for start in range(0, 9, 4):
        page = whole.read(whole.places[start : start + 4])
        assert page == whole.rows[start : start + 4]


def test_the_first_rows_hold_the_usual_measurement_best_first(user: Any, scores: list[str]) -> None:
    rows = build(user, "").rows
    usual = [row.name for row in rows if row.cells[0].comparable]
    assert usual == scores
    assert sum(not row.cells[0].comparable for row in rows) == 3


def test_ranks_beyond_the_bound_are_left_out_and_the_page_says_so(
    user: Any, client: Client, scores: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    client.force_login(user)
    assert "No ranks:" not in text_of(client.get("/?benchmark=arithmetic"))
    assert build(user, "").ranks
    monkeypatch.setattr(board, "MOST_RANKED", 5)
    made = build(user, "")
    assert (made.ranks, made.unranked) == ({}, 6)
    text = text_of(client.get("/?benchmark=arithmetic"))
    assert "No ranks: 6 scores are comparable" in text
    assert ">Rank<" not in text

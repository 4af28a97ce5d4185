"""Cells of the large tables: what has no value shows a dash."""

from __future__ import annotations

from typing import Any, cast

import pytest

from evaluator.programs_report import RatingRow
from evaluator.rating import Mode
from webapp.leaderboard import columns
from webapp.leaderboard.board import Cell
from webapp.leaderboard.templatetags.cells import board_cell

HERE = cast(Any, object())  # an evaluation of which these cells say nothing more


def told(*values: float | None) -> str:
    rows = tuple(
        RatingRow(f"rating@{k}", Mode.ELO, value) for k, value in zip((1, 8), values, strict=False)
    )
    column = columns.parse("codeforces:rating@1", {"codeforces": "Codeforces"})
    assert column is not None
    return str(board_cell(Cell(column, measured=HERE, ratings=rows)))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((), ["–"]),
        ((None,), ["–"]),
        ((None, None), ["–"]),
        ((1499.6, None), ["<b>1,500</b>"]),
        ((None, 1700.2), ["rating@8 1,700"]),
        ((1499.6, 1700.2), ["<b>1,500</b>", "rating@8 1,700"]),
    ],
)
def test_a_rating_that_is_undefined_is_a_dash(
    values: tuple[float | None, ...], words: list[str]
) -> None:
    cell = told(*values)
    assert all(word in cell for word in words)
    assert ("–" in cell) == (words == ["–"])
    assert cell.count("rating@1") == 1  # the column's name, which a phone shows in the cell

"""Drawings and figures: what they show is what they are given."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evaluator.records import Outcome
from webapp.core import drawing
from webapp.core.templatetags import retort
from webapp.leaderboard.charts import curves_figure
from webapp.runs.charts import loss_figure

OUTCOMES = [*map(str, Outcome), ""]


@given(st.lists(st.sampled_from(OUTCOMES), max_size=80))
def test_a_strip_has_one_mark_per_sample_in_its_own_place(outcomes: list[str]) -> None:
    svg = drawing.strip(outcomes)
    starts = [
        int(x) for data in re.findall(r' d="([^"]*)"', svg) for x in re.findall(r"M(\d+) ", data)
    ]
    assert set(starts) == {6 * i for i in range(len(outcomes))}
    assert f'aria-label="{outcomes.count("correct")} of {len(outcomes)} samples correct' in svg
    told = re.search(r'samples correct([^"]*)"', svg)
    assert told is not None
    counts = [int(count) for count in re.findall(r", (\d+) ", told[1])]
    assert sum(counts) == len(outcomes) - outcomes.count("correct")
    for outcome in set(outcomes):
        assert f"o-{outcome or 'ungraded'}" in svg


def test_outcomes_differ_in_shape_as_well_as_colour() -> None:
    shapes = {
        outcome: re.search(r' d="([^"]*)"', drawing.strip([outcome]))[1]  # type: ignore[index]
        for outcome in OUTCOMES
        if not (outcome and Outcome(outcome).is_error)
    }
    assert len(set(shapes.values())) == len(shapes)


@given(st.dictionaries(st.sampled_from([*map(str, Outcome)]), st.integers(1, 10**6), min_size=1))
def test_the_parts_of_an_outcome_bar_fill_it(counts: dict[str, int]) -> None:
    svg = drawing.outcome_bar(counts)
    parts = [tuple(map(float, p)) for p in re.findall(r'x="([\d.]+)" width="([\d.]+)"', svg)]
    assert len(parts) == len(counts)
    ends = [*(x for x, _ in parts[1:]), 400.0]
    shares = sorted(end - x for (x, _), end in zip(parts, ends, strict=True))
    expected = sorted(400 * count / sum(counts.values()) for count in counts.values())
    assert all(abs(a - b) < 0.02 for a, b in zip(shares, expected, strict=True))


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_score_bar_stays_inside_its_track(a: float, b: float, c: float) -> None:
    low, value, high = sorted((a, b, c))
    for x, width in re.findall(r'x="([\d.]+)" y="\d+" width="([\d.]+)"', drawing.score_bar(
        value, low, high
    )):  # fmt: skip
        assert float(x) >= -0.01
        assert float(x) + float(width) <= 200.51


def test_undefined_is_a_dash_and_never_zero() -> None:
    assert retort.percent(None) == "–"
    assert retort.percent(0.0) == "0.0"
    assert retort.compact(None) == "–"
    assert retort.duration(None) == "–"


def test_numbers_read_as_people_write_them() -> None:
    assert retort.percent(0.79833) == "79.8"
    assert retort.compact(1_543_714_304) == "1.54B"
    assert retort.compact(999) == "999"
    assert [retort.duration(s) for s in (0, 59, 60, 3599, 3600, 90_000)] == [
        "0 s", "59 s", "1 min 00 s", "59 min 59 s", "1 h 00 min", "25 h 00 min",
    ]  # fmt: skip


@given(st.integers(1, 10**15) | st.floats(0.001, 1e15))
@example(999_936)
@example(999.7)
@example(999_499_999)
def test_a_compact_number_is_within_half_a_percent_and_no_power_of_ten(value: float) -> None:
    number, unit = re.fullmatch(r"([\d.]+)([kMBT]?)", retort.compact(value)).groups()  # type: ignore[union-attr]
    assert float(number) * 1000 ** " kMBT".index(unit or " ") == pytest.approx(value, rel=0.00501)
    assert float(number) < 1000 or unit == "T"


@given(st.floats(0, 1e12))
@example(4.2e-5)
def test_money_is_no_power_of_ten(value: float) -> None:
    assert re.fullmatch(r"(< )?[\d.,]+", retort.money(value))


def test_curves_leave_undefined_points_out_and_need_two() -> None:
    metrics = {
        "pass@k": {"1": 0.5, "2": 0.75, "16": 0.9, "64": None},
        "cons@k": {"1": 0.5, "64": None},
        "cons@k_string": {},
    }
    figure = curves_figure(metrics)
    assert figure is not None
    assert [trace["name"] for trace in figure["data"]] == ["pass@k"]
    assert figure["data"][0]["x"] == [1, 2, 16]
    assert figure["data"][0]["y"] == [50.0, 75.0, 90.0]
    assert figure["layout"]["xaxis"]["type"] == "log"
    json.dumps(figure)
    assert curves_figure({"pass@k": {"1": 0.5}}) is None


def test_a_loss_figure_holds_every_logged_loss() -> None:
    figure = loss_figure([(1, {"loss": 2.0}), (2, {"grad_norm": 1.0}), (3, {"loss": 1.0})])
    assert figure is not None
    assert list(figure["data"][0]["x"]) == [1, 3]
    assert loss_figure([]) is None
    json.dumps(figure)

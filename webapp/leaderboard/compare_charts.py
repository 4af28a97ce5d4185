"""Figures of a comparison; each evaluation has the same colour and letter in all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from webapp.core.charts import Figure, figure
from webapp.leaderboard.charts import over_k
from webapp.leaderboard.compare import Comparison, Score

Curves = Mapping[str, Sequence[tuple[int, float]]]  # by letter


def curve_figure(name: str, curves: Curves, found: Comparison) -> Figure | None:
    """One metric over k on a log axis; None where no evaluation has two points."""
    drawn = {letter: points for letter, points in curves.items() if len(points) > 1}
    if not drawn:
        return None
    traces = [
        {
            "x": [k for k, _ in points],
            "y": [100 * share for _, share in points],
            "mode": "lines+markers",
            "line": {"width": 2, "dash": "dot" if side.is_baseline else "solid"},
            "name": side.letter,
            "meta": {"series": side.number},
            "hovertemplate": f"{side.letter}, k = %{{x}}: %{{y:.1f}} %<extra></extra>",
        }
        for side in found.sides
        if (points := drawn.get(side.letter))
    ]
    return figure(traces, over_k(f"{name} (%)", {k for each in drawn.values() for k, _ in each}))


def tokens_figure(scores: Sequence[Score]) -> Figure | None:
    """Accuracy against tokens, with intervals and the frontier; None for fewer than two points."""
    placed = [score for score in scores if score.value is not None and score.tokens is not None]
    if len(placed) < 2:
        return None
    frontier = sorted((s for s in placed if s.on_frontier), key=lambda s: s.tokens or 0.0)
    line = {
        "x": [score.tokens for score in frontier],
        "y": [_percent(score.value) for score in frontier],
        "mode": "lines",
        "line": {"width": 1, "dash": "dot", "shape": "hv"},
        "name": "frontier",
        "hoverinfo": "skip",
        "meta": {"series": 0},
    }
    layout = {
        "showlegend": False,  # every point bears its letter
        "xaxis": {"title": {"text": "tokens per completion (mean)"}},
        "yaxis": {"title": {"text": "pass@1 (%)"}, "rangemode": "tozero"},
    }
    return figure([line, *map(_point, placed)], layout)


def _point(score: Score) -> dict[str, Any]:
    y, letter = _percent(score.value), score.side.letter
    return {
        "x": [score.tokens],
        "y": [y],
        "mode": "markers+text",
        "text": [letter],
        "textposition": "middle right",
        "cliponaxis": False,
        "marker": {"size": 10},
        "error_y": {
            "type": "data",
            "array": [_percent(score.high) - y],
            "arrayminus": [y - _percent(score.low)],
            "thickness": 1.5,
        },
        "name": letter,
        "meta": {"series": score.side.number},
        "hovertemplate": f"{letter}: %{{y:.1f}} %, %{{x:,.0f}} tokens<extra></extra>",
    }


def _percent(share: float | None) -> float:
    assert share is not None, "a score that is drawn has its interval"
    return 100 * share


def table(curves: Curves) -> tuple[list[str], list[tuple[int, list[float | None]]]]:
    """(letters, rows of (k, share by letter)): the figure's points, for where it is not drawn."""
    letters = [letter for letter, points in curves.items() if points]
    by_letter: dict[str, dict[int, float]] = {letter: dict(curves[letter]) for letter in letters}
    ks = sorted({k for points in by_letter.values() for k in points})
    return letters, [(k, [by_letter[letter].get(k) for letter in letters]) for k in ks]


def tables(found: Mapping[str, Curves], sides: Comparison) -> list[dict[str, Any]]:
    """What the page shows of each metric's curves; metrics that cannot be drawn are left out."""
    made = []
    for name, curves in found.items():
        figure = curve_figure(name, curves, sides)
        if figure is not None:
            letters, rows = table(curves)
            made.append({
                "name": name, "id": name.replace("@", "-"), "figure": figure, "letters": letters,
                "rows": rows,
            })  # fmt: skip
    return made

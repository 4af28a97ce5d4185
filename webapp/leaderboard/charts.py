"""Figures of an evaluation, built here and drawn by static/js/charts.js."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

Figure = dict[str, Any]

# Name in metrics.json → how the curve is drawn.
CURVES = {"pass@k": "solid", "cons@k": "dash", "cons@k_string": "dot"}
NAMES = {"pass@k": "pass@k", "cons@k": "cons@k", "cons@k_string": "cons@k (votes by string)"}


def curves_figure(metrics: dict[str, Any]) -> Figure | None:
    """pass@k and cons@k over k on a log axis; None where there is one k only."""
    figure = go.Figure()
    for name, dash in CURVES.items():
        defined = sorted(
            (int(k), value) for k, value in (metrics.get(name) or {}).items() if value is not None
        )
        if len(defined) < 2:
            continue
        figure.add_scatter(
            x=[k for k, _ in defined],
            y=[100 * value for _, value in defined],
            mode="lines+markers",
            line={"dash": dash, "width": 2},
            name=NAMES[name],
            hovertemplate="k = %{x}: %{y:.1f} %<extra>" + NAMES[name] + "</extra>",
        )
    if not figure.data:
        return None
    ks = sorted({k for trace in figure.data for k in trace.x})
    figure.update_layout(
        template=None,
        xaxis={"type": "log", "title": {"text": "k (samples)"}, "tickvals": ks,
               "ticktext": [str(k) for k in ks]},
        yaxis={"title": {"text": "problems solved (%)"}, "rangemode": "tozero"},
    )  # fmt: skip
    return plain(figure)


def plain(figure: go.Figure) -> Figure:
    """The figure as plain JSON values."""
    made: Figure = figure.to_plotly_json()
    for trace in made["data"]:
        trace["x"], trace["y"] = list(trace["x"]), list(trace["y"])
    return made

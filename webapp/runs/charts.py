"""Figures of a run, built here and drawn by static/js/charts.js."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

Figure = dict[str, Any]


def loss_figure(points: Sequence[tuple[int, dict[str, Any]]]) -> Figure | None:
    """Loss (nats per supervised token) over optimizer steps; None without points."""
    drawn = [(step, values["loss"]) for step, values in points if values.get("loss") is not None]
    if not drawn:
        return None
    figure = go.Figure(
        go.Scatter(
            x=[step for step, _ in drawn],
            y=[loss for _, loss in drawn],
            mode="lines" if len(drawn) > 1 else "markers",
            name="loss",
            hovertemplate="step %{x}<br>loss %{y:.4f}<extra></extra>",
        )
    )
    figure.update_layout(
        xaxis_title="optimizer step", yaxis_title="loss (nats per token)", template=None
    )
    plain: Figure = figure.to_plotly_json()
    return plain

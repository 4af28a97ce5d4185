"""Figures of a run, built here and drawn by static/js/charts.js."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from webapp.core.charts import Figure, figure


def loss_figure(points: Sequence[tuple[int, dict[str, Any]]]) -> Figure | None:
    """Loss (nats per supervised token) over optimizer steps; None without points."""
    drawn = [(step, values["loss"]) for step, values in points if values.get("loss") is not None]
    if not drawn:
        return None
    loss = {
        "x": [step for step, _ in drawn],
        "y": [loss for _, loss in drawn],
        "mode": "lines" if len(drawn) > 1 else "markers",
        "name": "loss",
        "hovertemplate": "step %{x}<br>loss %{y:.4f}<extra></extra>",
    }
    layout = {
        "xaxis": {"title": {"text": "optimizer step"}},
        "yaxis": {"title": {"text": "loss (nats per token)"}},
    }
    return figure([loss], layout)

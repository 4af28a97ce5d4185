"""Figures as plain JSON: built and checked by plotly here, drawn by static/js/charts.js."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import plotly.graph_objects as go

Figure = dict[str, Any]


def figure(traces: Iterable[Mapping[str, Any]], layout: Mapping[str, Any]) -> Figure:
    """Scatter traces and a layout, without a template: colours are the page's.

    Each is checked by itself: a ``go.Figure`` of them would check all of it once more, in three
    quarters of the time. Raises ValueError for what plotly does not know.
    """
    data = [go.Scatter(**trace).to_plotly_json() for trace in traces]
    for trace in data:
        trace["x"], trace["y"] = list(trace["x"]), list(trace["y"])
    return {"data": data, "layout": go.Layout(**layout).to_plotly_json()}

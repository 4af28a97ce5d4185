"""Figures as plain JSON: built and checked by plotly here, drawn by static/js/charts.js."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import plotly.graph_objects as go

Figure = dict[str, Any]


def figure(traces: Iterable[Mapping[str, Any]], layout: Mapping[str, Any]) -> Figure:
    """Scatter traces and a layout, without a template: colours are the page's.

    All at once, since a figure that grows checks what it has each time. Raises ValueError for what
    plotly does not know.
    """
    whole = go.Figure(data=[go.Scatter(**trace) for trace in traces], layout=go.Layout(**layout))
    made: Figure = whole.to_plotly_json()
    made["layout"].pop("template", None)
    for trace in made["data"]:
        trace["x"], trace["y"] = list(trace["x"]), list(trace["y"])
    return made

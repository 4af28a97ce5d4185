"""Figures of an evaluation, built here and drawn by static/js/charts.js."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from webapp.core.charts import Figure, figure

# Name in metrics.json → how the curve is drawn.
CURVES = {"pass@k": "solid", "cons@k": "dash", "cons@k_string": "dot"}
NAMES = {"pass@k": "pass@k", "cons@k": "cons@k", "cons@k_string": "cons@k (votes by string)"}


def curves_figure(metrics: dict[str, Any]) -> Figure | None:
    """pass@k and cons@k over k on a log axis; None where there is one k only."""
    traces, ks = [], set()
    for name, dash in CURVES.items():
        defined = sorted(
            (int(k), value) for k, value in (metrics.get(name) or {}).items() if value is not None
        )
        if len(defined) < 2:
            continue
        ks |= {k for k, _ in defined}
        traces.append({
            "x": [k for k, _ in defined],
            "y": [100 * value for _, value in defined],
            "mode": "lines+markers",
            "line": {"dash": dash, "width": 2},
            "name": NAMES[name],
            "hovertemplate": "k = %{x}: %{y:.1f} %<extra>" + NAMES[name] + "</extra>",
        })  # fmt: skip
    return figure(traces, over_k("problems solved (%)", ks)) if traces else None


def over_k(title: str, ks: Collection[int]) -> dict[str, Any]:
    """The layout of a share in percent over k on a log axis, which names each k."""
    ticks = sorted(ks)
    return {
        "xaxis": {"type": "log", "title": {"text": "k (samples)"}, "tickvals": ticks,
                  "ticktext": [str(k) for k in ticks]},
        "yaxis": {"title": {"text": title}, "rangemode": "tozero"},
    }  # fmt: skip

"""A finished evaluation as one HTML page or as JSON. Torch-free: the webapp imports it.

The page opens without a network and holds no script: its chart is drawn here as SVG, a few
kilobytes where plotly.js would add 4.8 MB to each report. Everything that a model or a user wrote
is escaped, and the page's own policy forbids scripts besides.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from evaluator import programs_report
from evaluator.records import Outcome

SCHEMA = "retort/report/1"
NOTICE = (
    "This report quotes problems whose authors ask that they not be put in the open: it must not "
    "be posted or published."
)
WITHHELD = "(withheld: the benchmark's authors ask that it not be put in the open)"
_TEXT_CHARACTERS = 8000  # of a sample's text on the page; its middle is left out beyond
_CURVES = (("pass@k", "pass"), ("cons@k", "cons"), ("cons@k_string", "string"))
_INKS = {"pass": "#1f5fa8", "cons": "#b4540a", "string": "#7a8590"}  # as the page's own, for print
# Control characters (but newline and tab) and lone surrogates have no meaning in a page.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_PROBLEM_ROWS = 1000  # in the page's table; the other forms hold all
_BINS = 10  # of the histogram of problems
_WIDTH, _HEIGHT = 640, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 10, 34

_environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def as_json(data: Mapping[str, Any]) -> dict[str, Any]:
    """The report's content for programs: ``data`` as it is, with a schema name."""
    return {"schema": SCHEMA, **data}


def html(data: Mapping[str, Any]) -> str:
    """The report as a page.

    ``data``: title, checkpoint, benchmark, protocol, measurement_hash, run_fingerprint, engine,
    metrics (PROTOCOLS §2), rendered_prompt, samples (``{problem_id, problem, gold, sample, outcome,
    answer, text, judged?}`` each), generated_at, version. Raises KeyError when one is missing.
    Optional: ``diagnostics`` (alarms, and length against correctness, as the webapp counts them);
    ``disputes`` (``{"items": [Dispute.to_json…], "metrics": metrics with them, or None}``);
    ``notice`` (a sentence that stands first).
    """
    metrics = data["metrics"]
    page = _environment.get_template("report_template.html").render(
        title=data["title"],
        checkpoint=data["checkpoint"],
        benchmark=data["benchmark"],
        measurement_hash=data["measurement_hash"],
        run_fingerprint=data["run_fingerprint"],
        rendered_prompt=data["rendered_prompt"],
        generated_at=data["generated_at"],
        version=data["version"],
        metrics=metrics,
        notice=data.get("notice"),
        scores=score_rows(metrics),
        disputes=_disputes(data.get("disputes")),
        solved=_solved_chart(metrics),
        problems=_problems(metrics),
        verdicts=programs_report.verdicts(metrics),
        ratings=programs_report.ratings(metrics),
        program_notes=programs_report.notes(metrics),
        contests=_contests(metrics),
        outcomes=_outcomes(metrics["outcomes"]),
        tokens={name: value for name, value in metrics["tokens"].items() if value is not None},
        diagnostics=data.get("diagnostics"),
        curves=_curve_table(metrics),
        chart=_chart(metrics),
        groups=_groups(metrics["by"]),
        protocol=_flat(data["protocol"]),
        engine=_flat(data["engine"]),
        clamped=_clamped(data),
        samples=[_sample(sample) for sample in data["samples"]],
    )
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", page.replace("\r\n", "\n"))


def without_texts(data: Mapping[str, Any]) -> dict[str, Any]:
    """``data`` without what quotes the problems: for benchmarks that may not be put in the open.

    Problems, completions, references and the rendered prompt go; an answer stays if it is a letter.
    """

    def bare(sample: Mapping[str, Any]) -> dict[str, Any]:
        kept = {**sample, "problem": WITHHELD, "gold": WITHHELD}
        if "text" in sample:
            kept["text"] = WITHHELD
        if len(sample.get("answer") or "") > 1:
            kept["answer"] = WITHHELD
        return kept

    found = {
        **data,
        "metrics": _bare_metrics(data["metrics"]),
        "rendered_prompt": WITHHELD,
        "samples": [bare(sample) for sample in data["samples"]],
    }
    if disputes := data.get("disputes"):
        metrics = disputes["metrics"]
        found["disputes"] = {
            "items": [{**bare_row(item), "reason": WITHHELD} for item in disputes["items"]],
            "metrics": None if metrics is None else _bare_metrics(metrics),
        }
    return found


def bare_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A sample's figures without what quotes the problem; an answer stays if it is a letter."""
    kept = dict(row)
    if "gold" in kept:
        kept["gold"] = WITHHELD
    for name in ("answer", "reason"):
        if len(kept.get(name) or "") > 1:
            kept[name] = WITHHELD
    return kept


def _bare_metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    kept = dict(metrics)
    if "per_problem" in kept:
        kept["per_problem"] = [
            row if len(row.get("majority") or "") <= 1 else {**row, "majority": WITHHELD}
            for row in kept["per_problem"]
        ]
    return kept


def score_rows(metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The headline scores as (name with its estimator, value, interval); blank where undefined."""
    n = metrics["samples"]
    if not metrics["complete"]:
        bounds = metrics["bounds"]
        between = f"{_percent(bounds['low'])} – {_percent(bounds['high'])}"
        return [(f"pass@1[avg-of-{n}]", "incomplete", f"bounds {between}")]
    first = metrics["pass@1"]
    interval = (
        "" if first["low"] is None else f"{_percent(first['low'])} – {_percent(first['high'])}"
    )
    rows = [(f"pass@1[avg-of-{n}]", _percent(first["value"]), interval)]
    if n > 1:
        rows += [
            (f"{family}@{n}", _percent(metrics[f"{family}@k"].get(str(n))), "")
            for family in ("pass", "cons")
            if family == "pass" or "verdicts" not in metrics  # programs do not vote
        ]
    return [
        *rows,
        ("standard error, total", _percent(first["se_total"]), ""),
        ("standard error, re-run", _percent(first["se_rerun"]), ""),
    ]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def _outcomes(counts: Mapping[str, int]) -> dict[str, Any]:
    """Every outcome with count and share, and their sum."""
    total = sum(counts.values())
    rows = [
        {"name": str(outcome), "count": counts[outcome], "share": counts[outcome] / max(total, 1)}
        for outcome in sorted(Outcome, key=lambda outcome: -counts[outcome])
    ]
    return {"rows": rows, "total": total}


def _curve_table(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The curves with k as columns, a row for each family; blank where undefined."""
    defined = {
        int(k) for name, _ in _CURVES for k, value in metrics[name].items() if value is not None
    }
    ks = sorted(defined)
    rows = [(name, [_percent(metrics[name].get(str(k))) for k in ks]) for name, _ in _CURVES]
    return {"ks": ks, "rows": rows}


def _chart(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Coordinates of the curves over k (logarithmic), in the units of the SVG's view box."""
    ks = _curve_table(metrics)["ks"]
    span = math.log2(ks[-1]) if ks and ks[-1] > 1 else 1.0

    def across(k: int) -> float:
        return round(_LEFT + (_WIDTH - _LEFT - _RIGHT) * math.log2(k) / span, 1)

    def down(value: float) -> float:
        return round(_TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - value), 1)

    lines = []
    for name, style in _CURVES:
        values = metrics[name]
        points = [
            {"x": across(k), "y": down(value), "label": f"{name} at k = {k}: {_percent(value)}"}
            for k in ks
            if (value := values.get(str(k))) is not None
        ]
        path = " ".join(f"{point['x']},{point['y']}" for point in points)
        lines.append(
            {
                "name": name,
                "style": style,
                "ink": _INKS[style],
                "points": points,
                "path": path,
            }
        )
    return {
        "width": _WIDTH,
        "height": _HEIGHT,
        "left": _LEFT,
        "right": _WIDTH - _RIGHT,
        "bottom": _HEIGHT - _BOTTOM,
        "x_ticks": [(across(k), k) for k in ks],
        "y_ticks": [(down(step / 4), f"{25 * step} %") for step in range(5)],
        "lines": lines,
        "drawn": len(ks) > 1,
    }


def _disputes(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The disputes and the score with them; None where there are none."""
    if not found or not found["items"]:
        return None
    metrics = found["metrics"]
    return {
        "items": found["items"],
        "scores": [] if metrics is None else score_rows(metrics),
    }


def _solved_chart(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """How many problems have what share of their samples right, as bars; None without counts.

    The first and the last bar are the problems that were never and always solved.
    """
    shares = [row["correct"] / row["n"] for row in metrics.get("per_problem", ()) if row["n"]]
    if not shares:
        return None
    counts = [0] * (_BINS + 1)
    for share in shares:
        inside = min(max(round(share * _BINS), 1), _BINS - 1)
        counts[int(share) * _BINS if share in (0, 1) else inside] += 1
    tallest, span = max(counts), _WIDTH - _LEFT - _RIGHT
    across = span / len(counts)
    room = _HEIGHT - _TOP - _BOTTOM
    bars = [
        {
            "x": round(_LEFT + index * across + 3, 1),
            "y": round(_HEIGHT - _BOTTOM - room * count / tallest, 1),
            "width": round(across - 6, 1),
            "height": round(room * count / tallest, 1),
            "middle": round(_LEFT + (index + 0.5) * across, 1),
            "label": f"{100 * index // _BINS} %",
            "count": count,
        }
        for index, count in enumerate(counts)
    ]
    return {"width": _WIDTH, "height": _HEIGHT, "bottom": _HEIGHT - _BOTTOM, "left": _LEFT,
            "right": _WIDTH - _RIGHT, "bars": bars}  # fmt: skip


def _problems(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """A row for each problem, up to so many, and how many there are."""
    found = metrics.get("per_problem", ())
    rows = [
        {
            "id": row["id"],
            "right": f"{row['correct']} of {row['n']}",
            "majority": row.get("majority"),
            "votes": "" if row.get("votes") is None else f"{row['votes']} of {row['n']}",
            "consensus": _percent(row.get("cons")),
        }
        for row in found[:_PROBLEM_ROWS]
    ]
    return {"rows": rows, "total": len(found)}


def _groups(by: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A table for each breakdown that has groups."""
    return [
        {
            "name": name,
            "rows": [
                {
                    "group": group,
                    "problems": row["problems"],
                    "value": _percent(row["value"]),
                    "interval": ""
                    if row["low"] is None
                    else f"{_percent(row['low'])} – {_percent(row['high'])}",
                }
                for group, row in groups.items()
            ],
        }
        for name, groups in by.items()
        if groups
    ]


def _contests(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The contests that a rating is the mean of."""
    rating = metrics.get("rating") or {}
    return list((rating.get("elo") or {}).get("contests", ()))


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (dotted name, text) rows; what is not set is left out."""
    rows: list[tuple[str, str]] = []
    for name, item in value.items():
        if isinstance(item, Mapping):
            rows += _flat(item, f"{prefix}{name}.")
        elif isinstance(item, bool):
            rows.append((prefix + name, "yes" if item else "no"))
        elif item is not None and item not in ("", [], ()):
            rows.append((prefix + name, str(item)))
    return rows


def _clamped(data: Mapping[str, Any]) -> str:
    """What the model's context cut from the protocol, in a sentence; empty where nothing."""
    context = data["engine"].get("context_tokens")
    longest = data["protocol"].get("sampling", {}).get("max_tokens")
    if context is None or longest is None or longest < context:
        return ""
    return (
        f"The protocol allows {longest:,} tokens; prompt and response together are clamped to the "
        f"context of {context:,}."
    )


def _sample(sample: Mapping[str, Any]) -> dict[str, Any]:
    """``sample``, its text without the middle where it is long."""
    text = sample["text"]
    if len(text) > _TEXT_CHARACTERS:
        half = _TEXT_CHARACTERS // 2
        left_out = len(text) - 2 * half
        text = f"{text[:half]}\n\n[… {left_out:,} characters left out …]\n\n{text[-half:]}"
    return {**sample, "text": text}

"""Small pictures as SVG text: score intervals, outcome bars, strips of samples, state icons.

Widths stand in SVG attributes and colours in classes, because the content security policy forbids
inline styles. Everything returned is safe HTML: only numbers and known words are put in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from django.utils.html import format_html
from django.utils.safestring import SafeString

from evaluator.records import Outcome

UNGRADED = "ungraded"

OUTCOME_WORDS: dict[str, str] = {
    Outcome.CORRECT: "correct",
    Outcome.WRONG: "wrong",
    Outcome.LOOPED: "looped",
    Outcome.TRUNCATED: "truncated",
    Outcome.NO_ANSWER: "no answer",
    Outcome.ENGINE_ERROR: "engine error",
    Outcome.GRADER_ERROR: "grader error",
    UNGRADED: "not graded yet",
}

# In a cell of 6 by 14: what each outcome looks like, so that colour is never the only sign.
_CELL_WIDTH, _CELL_HEIGHT = 6, 14
_SHAPES: dict[str, str] = {
    Outcome.CORRECT: "M{x} 0h5v14h-5z",
    Outcome.WRONG: "M{x} 8h5v6h-5z",
    Outcome.LOOPED: "M{x} 4h5v2.5h-5zM{x} 9h5v2.5h-5z",
    Outcome.TRUNCATED: "M{x} 11.5h5v2.5h-5z",
    Outcome.NO_ANSWER: "M{x} 6h5v2.5h-5z",
    Outcome.ENGINE_ERROR: "M{x} 3l2.5 4l2.5 -4v8l-2.5 -4l-2.5 4z",
    Outcome.GRADER_ERROR: "M{x} 3l2.5 4l2.5 -4v8l-2.5 -4l-2.5 4z",
    UNGRADED: "M{x} 13h5v1h-5z",
}

_STATE_ICONS: dict[str, str] = {
    "waiting": '<circle cx="8" cy="8" r="6" stroke-dasharray="2.2 2.2"/>',
    "queued": '<circle cx="8" cy="8" r="6"/><path d="M8 4.8V8l2.2 1.6"/>',
    "running": '<path d="M8 2a6 6 0 1 0 6 6"/>',
    "finished": '<path d="M3 8.6l3.4 3.4L13 4.6"/>',
    "failed": '<path d="M4 4l8 8M12 4l-8 8"/>',
    "cancelled": '<circle cx="8" cy="8" r="6"/><path d="M4 12l8-8"/>',
}


def state_mark(state: str) -> SafeString:
    """Return a state's icon with its word."""
    icon = SafeString(_STATE_ICONS[state])  # a constant of this module
    return format_html(
        '<span class="state state-{}"><svg viewBox="0 0 16 16" fill="none" stroke="currentColor"'
        ' stroke-width="2" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">{}'
        "</svg>{}</span>",
        state,
        icon,
        state,
    )


def score_bar(value: float, low: float | None, high: float | None) -> SafeString:
    """Return a bar from 0 to 1 with the value as a dot and its interval as a line.

    The picture repeats numbers that stand beside it, so it is hidden from screen readers.
    """
    line = SafeString("")
    if low is not None and high is not None:
        line = format_html(
            '<rect class="iv-range" x="{}" y="6" width="{}" height="2"/>',
            _number(200 * low),
            _number(max(200 * (high - low), 0.5)),
        )
    return format_html(
        '<svg viewBox="0 0 200 14" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="iv-track" width="200" height="14"/>'
        '<rect class="iv-fill" width="{}" height="14"/>{}'
        '<rect class="iv-dot" x="{}" y="2" width="2" height="10"/></svg>',
        _number(200 * value),
        line,
        _number(min(max(200 * value - 1, 0), 198)),
    )


def outcome_glyph(outcome: str) -> SafeString:
    """Return the shape of one outcome, for legends."""
    return format_html(
        '<svg viewBox="0 0 6 14" aria-hidden="true"><path class="o-{}" d="{}"/></svg>',
        outcome or UNGRADED,
        _SHAPES[outcome or UNGRADED].replace("{x}", "0"),
    )


def outcome_word(outcome: str) -> SafeString:
    """Return an outcome's shape with its word."""
    known = outcome or UNGRADED
    return format_html(
        '<span class="outcome">{}{}</span>', outcome_glyph(known), OUTCOME_WORDS[known]
    )


def strip(outcomes: Sequence[str]) -> SafeString:
    """Return one cell per sample, in sample order: a problem's n samples at a glance."""
    paths: dict[str, list[str]] = {}
    for index, outcome in enumerate(outcomes):
        known = outcome or UNGRADED
        paths.setdefault(known, []).append(_SHAPES[known].replace("{x}", str(index * _CELL_WIDTH)))
    drawn = [
        format_html('<path class="o-{}" d="{}"/>', known, "".join(parts))
        for known, parts in paths.items()
    ]
    right = sum(outcome == Outcome.CORRECT for outcome in outcomes)
    others = Counter(outcome or UNGRADED for outcome in outcomes if outcome != Outcome.CORRECT)
    told = "".join(
        f", {others[each]} {word}" for each, word in OUTCOME_WORDS.items() if others[each]
    )
    width = max(len(outcomes), 1) * _CELL_WIDTH
    return format_html(
        '<svg class="strip" viewBox="0 0 {} {}" width="{}" height="{}" role="img"'
        ' aria-label="{} of {} samples correct{}">{}</svg>',
        width,
        _CELL_HEIGHT,
        width,
        _CELL_HEIGHT,
        right,
        len(outcomes),
        told,
        SafeString("".join(drawn)),  # every part was escaped above
    )


def outcome_bar(counts: Mapping[str, int]) -> SafeString:
    """Return one bar whose parts are the shares of the outcomes; they sum to the whole."""
    total = sum(counts.values())
    parts, at = [], 0.0
    for outcome in OUTCOME_WORDS:
        share = 400 * counts.get(outcome, 0) / total if total else 0.0
        if share:
            parts.append(
                format_html(
                    '<rect class="o-{}" x="{}" width="{}" height="16"/>',
                    outcome,
                    _number(at),
                    _number(max(share - 1, 0.6)),
                )
            )
        at += share
    return format_html(
        '<svg viewBox="0 0 400 16" preserveAspectRatio="none" aria-hidden="true">{}</svg>',
        SafeString("".join(parts)),  # every part was escaped above
    )


def share_bar(kept: int, dropped: int, whole: int) -> SafeString:
    """Return a funnel's bar: what is kept, what this step dropped, out of the whole."""
    scale = 400 / whole if whole else 0.0
    return format_html(
        '<svg viewBox="0 0 400 16" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="base" width="400" height="16"/><rect class="bar" width="{}" height="16"/>'
        '<rect class="cut" x="{}" width="{}" height="16"/></svg>',
        _number(kept * scale),
        _number(kept * scale),
        _number(dropped * scale),
    )


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")

"""Template tags of the leaderboard and of comparisons: letters in colours, differences, orders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

from evaluator.statistics import PairedComparison
from webapp.core.templatetags.retort import BLANK, with_query
from webapp.leaderboard.board import Row

register = template.Library()


@register.filter
def letter(side: object) -> SafeString:
    """A side's letter on its colour."""
    return format_html(
        '<b class="letter s-{}">{}</b>', getattr(side, "number", 0), getattr(side, "letter", "")
    )


@register.filter
def points(share: float | None, digits: int = 1) -> str:
    """0.123 → "+12.3", a difference in points; undefined is a dash."""
    if share is None:
        return BLANK
    text = f"{100 * share:+.{digits}f}"
    return text.replace("-", "\u2212") if float(text) else f"{0:.{digits}f}"


@register.filter
def signed(value: float) -> str:
    """1.234 → "+1.2"."""
    return f"{value:+.1f}".replace("-", "\u2212")


@register.filter
def source_numbers(row: Row) -> list[int]:
    """The numbers of the sources of a published row's figures."""
    return sorted({f.source.number for cell in row.cells for f in cell.figures})


@register.simple_tag(takes_context=True)
def sort_query(context: Mapping[str, Any], key: str, sort: str, flipped: bool) -> str:
    """Return the page's query string sorted by ``key``; by the same key again, the other way."""
    other_way = key == sort and not flipped
    return with_query(context, sort=f"-{key}" if other_way else key, page="")


@register.filter
def p_value(p: float | None) -> str:
    """0.0123 → "0.012"; what is smaller than a thousandth is said so."""
    if p is None:
        return BLANK
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


@register.simple_tag(takes_context=True)
def sample_query(context: Mapping[str, Any], side: str, sample: int) -> str:
    """Return the page's query string with another sample of one evaluation shown."""
    return with_query(context, **{f"sample{side}": sample})


@register.simple_tag
def difference_bar(paired: PairedComparison, reach: float) -> SafeString:
    """A difference as a dot and its interval as a line about 0, on a scale of ±``reach``."""

    def at(share: float) -> str:
        return f"{100 + 96 * max(-1.0, min(1.0, share / reach)):.1f}" if reach else "100"

    line = SafeString("")
    if paired.low is not None and paired.high is not None:
        line = format_html(
            '<line class="dv-range" x1="{}" x2="{}" y1="7" y2="7"/>',
            at(paired.low),
            at(paired.high),
        )
    return format_html(
        '<svg class="dv" viewBox="0 0 200 14" preserveAspectRatio="none" aria-hidden="true">'
        '<line class="dv-zero" x1="100" x2="100" y1="0" y2="14"/>{}'
        '<line class="dv-dot" x1="{}" x2="{}" y1="2" y2="12"/></svg>',
        line,
        at(paired.difference),
        at(paired.difference),
    )


@register.simple_tag
def heat(correct: int, scored: int) -> SafeString:
    """A cell as dark as its share of right samples; the numbers stand beside it."""
    share = correct / scored if scored else 0.0
    return format_html(
        '<svg class="heat" viewBox="0 0 40 12" aria-hidden="true"><rect class="h-no" width="40"'
        ' height="12"/><rect class="h-yes" width="{}" height="12"/></svg>',
        f"{40 * share:.1f}".rstrip("0").rstrip("."),
    )

"""Template tags: numbers as people read them, and the pictures of ``webapp.core.drawing``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

from webapp.core import drawing

register = template.Library()

BLANK = "–"


@register.simple_tag(takes_context=True)
def current_page(context: Mapping[str, Any], *apps: str) -> SafeString:
    """Mark the navigation entry of the apps to one of which this page belongs."""
    request = context.get("request")
    match = getattr(request, "resolver_match", None)
    if match is not None and match.app_name in apps:
        return SafeString(' aria-current="page"')
    return SafeString("")


@register.simple_tag(takes_context=True)
def with_query(context: Mapping[str, Any], **changes: Any) -> str:
    """Return this page's query string with ``changes``; an empty value removes a key."""
    query = context["request"].GET.copy()
    for key, value in changes.items():
        if value in {None, ""}:
            query.pop(key, None)
        else:
            query[key] = str(value)
    return f"?{query.urlencode()}" if query else "?"


@register.filter
def percent(value: float | None, digits: int = 1) -> str:
    """0.798 → "79.8"; undefined is a dash, never 0."""
    return BLANK if value is None else f"{100 * value:.{digits}f}"


@register.filter
def compact(value: float | None) -> str:
    """1500000000 → "1.5B"."""
    if value is None:
        return BLANK
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * size:  # rounds to a whole one: 1M, not 1000k
            return f"{_three_digits(value / size)}{letter}"
    return _three_digits(value)


def _three_digits(value: float) -> str:
    """1.2345 → "1.23", 999.9 → "1000"; ``g`` alone would write "1e+03"."""
    return f"{value:.0f}" if abs(value) >= 99.95 else f"{value:.3g}"


@register.filter
def duration(seconds: float | None) -> str:
    """3700 → "1 h 02 min"."""
    if seconds is None:
        return BLANK
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


@register.filter
def money(value: float | None) -> str:
    """1234.5 → "1,234.50", 0.00123 → "0.0012"; undefined is a dash, never 0."""
    if value is None:
        return BLANK
    if 0 < value < 0.0001:
        return "< 0.0001"
    return f"{value:,.2f}" if value == 0 or value >= 0.1 else f"{value:.2g}"


@register.filter
def short_hash(value: str | None) -> SafeString:
    """The first 8 digits in monospace, with the whole as a title."""
    if not value:
        return SafeString(BLANK)
    return format_html('<code title="{}">{}</code>', value, value[:8])


@register.filter
def item(mapping: Mapping[str, Any] | None, key: str) -> Any:
    """Look a key up that a template cannot spell, as "pass@1"."""
    return None if mapping is None else mapping.get(str(key))


@register.filter
def state_mark(state: str) -> SafeString:
    """A state's icon with its word."""
    return drawing.state_mark(state)


@register.filter
def outcome_word(outcome: str) -> SafeString:
    """An outcome's shape with its word."""
    return drawing.outcome_word(outcome)


@register.filter
def strip(outcomes: Sequence[str]) -> SafeString:
    """One cell per sample."""
    return drawing.strip(outcomes)


@register.filter
def outcome_bar(counts: Mapping[str, int]) -> SafeString:
    """One bar of all outcomes."""
    return drawing.outcome_bar(counts)


@register.simple_tag
def score(value: float | None, low: float | None = None, high: float | None = None) -> SafeString:
    """A share with its interval, in percent and drawn; bounds alone where it has no value."""
    if value is None:
        told = BLANK if low is None else f"between {percent(low)} and {percent(high)}"
        return format_html('<span class="quiet">{}</span>', told)
    span = SafeString("")
    if low is not None:
        span = format_html(
            '<span class="range"><span class="sr">95 % interval </span>{} – {}</span>',
            percent(low), percent(high),
        )  # fmt: skip
    bar = drawing.score_bar(value, low, high)
    return format_html('<div class="score"><b>{}</b>{}{}</div>', percent(value), bar, span)


@register.simple_tag
def share_bar(kept: int, dropped: int, whole: int) -> SafeString:
    """A funnel's bar."""
    return drawing.share_bar(kept, dropped, whole)


@register.filter
def pretty_json(value: Any) -> str:
    """Indented JSON, for reading."""
    return json.dumps(value, indent=2, ensure_ascii=False)

"""Template tags of the pages that look closely: changes in points, a program's tests as cells."""

from __future__ import annotations

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

from webapp.leaderboard.evaluations import Judged

register = template.Library()

MOST_CELLS = 100  # tests beyond so many are drawn as shares


@register.filter
def points(value: float | None) -> str:
    """A difference of shares in points, with its sign: 0.125 → "+12.5"; undefined is a dash."""
    if value is None:
        return "–"
    return f"{100 * value:+.1f}".replace("-", "−") if value else "0.0"


@register.filter
def test_cells(judged: Judged) -> SafeString:
    """One cell for each test: passed, failed, not run; the words beside it say the same."""
    shown = min(judged.tests, MOST_CELLS)
    passed = judged.passed * shown // max(judged.tests, 1)
    failed = 1 if judged.test and passed < shown else 0
    kinds = ["correct"] * passed + ["wrong"] * failed
    kinds += ["none"] * (shown - len(kinds))
    cells = [
        format_html('<rect class="t-{}" x="{}" width="7" height="12"/>', kind, 9 * index)
        for index, kind in enumerate(kinds)
    ]
    return format_html(
        '<svg class="tests" viewBox="0 0 {} 12" width="{}" height="12" role="img"'
        ' aria-label="{} of {} tests passed{}">{}</svg>',
        max(9 * shown, 1), max(9 * shown, 1), judged.passed, judged.tests,
        ", one failed" if failed else "",
        SafeString("".join(cells)),  # every part was escaped above
    )  # fmt: skip

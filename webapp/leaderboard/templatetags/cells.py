"""Cells of the two large tables: an evaluation's on the leaderboard, a problem's in a comparison.

They are functions, since a page has some hundred of them: as nodes of a template they were a
quarter of what drawing a leaderboard took (docs/LOG.md).
"""

from __future__ import annotations

from django import template
from django.template.defaultfilters import floatformat, truncatechars
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from evaluator.programs_report import RatingRow
from webapp.core.templatetags.retort import BLANK, percent, score, short_hash
from webapp.leaderboard.board import Cell
from webapp.leaderboard.heatmap import CellView
from webapp.leaderboard.published import Figure
from webapp.leaderboard.queries import Measured
from webapp.leaderboard.templatetags.comparing import heat, points, signed

register = template.Library()

NOTHING = SafeString("")
MAJORITY_LENGTH = 18  # of an answer, in characters; the whole stands on the problem's page
_TOLD_APART = 2.0  # of a z: about the 5 % level


@register.simple_tag
def board_cell(cell: Cell) -> SafeString:
    """One column of one row of the leaderboard, with its ``td``."""
    column, each = cell.column, cell.measured
    if not column.benchmark:
        return format_html(
            '<td class="num nowrap{}" data-label="{}">{}</td>',
            "" if cell.text else " blank", column.title.lower(), cell.text or BLANK,
        )  # fmt: skip
    if each is None and not cell.figures:
        return format_html('<td class="{}blank">{}</td>', "" if column.is_score else "num ", BLANK)
    draw = _score if column.is_score else _rating if column.is_rating else _figure
    led = _measurement(cell, each) if cell.leads and each is not None else NOTHING
    return format_html("{}{}{}</td>", draw(cell), led, _distances(cell))


def _score(cell: Cell) -> SafeString:
    opening = format_html('<td class="wide" data-label="{}">', cell.column.title)
    if cell.measured is not None:
        address = reverse("leaderboard:evaluation", args=[cell.measured.pk])
        told = score(cell.value, cell.low, cell.high)
        return format_html('{}<a class="figure" href="{}">{}</a>', opening, address, told)
    first, *others = cell.figures
    said = [score(first.value), _note(first)]
    for figure in others:
        number = figure.source.number
        said.append(format_html(
            '<span class="sub">{} says <a href="#source-{}">source {}</a></span>{}',
            percent(figure.value), number, number, _note(figure),
        ))  # fmt: skip
    return format_html("{}{}", opening, _joined(said))


def _rating(cell: Cell) -> SafeString:
    opening = format_html('<td class="num" data-label="{}">', cell.column.name)
    if cell.measured is None:
        told = [format_html("{}{}", _whole(f.value), _note(f)) for f in cell.figures]
    elif cell.ratings:
        told = [_one_rating(each, is_first=not place) for place, each in enumerate(cell.ratings)]
    elif cell.unrated:
        told = [format_html('<span class="sub" title="{}">no contests</span>', cell.unrated)]
    else:
        told = []
    return format_html("{}{}", opening, _joined(told) or BLANK)


def _one_rating(each: RatingRow, *, is_first: bool) -> SafeString:
    if each.value is None:
        return NOTHING
    if not is_first:
        clamped = ", clamped" if each.bound else ""
        return format_html(
            '<span class="sub">{} {}{}</span>', each.name, _whole(each.value), clamped
        )
    interval = clamped_at = NOTHING
    if each.low is not None:
        interval = format_html(
            ' <span class="quiet small">{} – {}</span>', _whole(each.low), _whole(each.high)
        )
    if each.bound:
        clamped_at = format_html(
            ' <span class="tag warn" title="In {} % of the contests no rating has the place'
            ' reached; the nearest one stands for it.">clamped</span>',
            percent(each.clamped, 0),
        )
    return format_html(
        '<span class="nowrap"><b>{}</b>{}</span>{}'
        '<span class="sub">above {} % of {}; {} contest{}</span>',
        _whole(each.value), interval, clamped_at,
        floatformat(each.percentile, 1), each.population, each.contests,
        "" if each.contests == 1 else "s",
    )  # fmt: skip


def _figure(cell: Cell) -> SafeString:
    column, value = cell.column, cell.order
    drawn = NOTHING
    if value is not None and cell.measured is not None and "@n" in column.metric:
        drawn = _of_n(cell.k)
    if cell.figures and column.metric == "cons@n":
        drawn = _of_n(64)
    return format_html(
        '<td class="num nowrap{}" data-label="{}">{}{}',
        " blank" if value is None else "", column.name,
        _whole(value) if column.metric == "tokens" else percent(value), drawn,
    )  # fmt: skip


def _of_n(k: int | None) -> SafeString:
    return format_html(' <span class="quiet small">@{}</span>', k)


def _measurement(cell: Cell, each: Measured) -> SafeString:
    """How it was measured, and what a reader has to know of that."""
    drawn = "" if each.temperature is None else f", T = {each.temperature}"
    said = [format_html(
        ' <span class="sub nowrap">n = {}{}, {}</span>',
        each.samples, drawn, short_hash(each.measurement_hash),
    )]  # fmt: skip
    if each.is_imported:
        said.append(SafeString(
            '<span class="tag" title="They came in a file; nothing here shows that this model wrote'
            ' them.">imported completions</span>'
        ))  # fmt: skip
    if cell.is_incomplete:
        said.append(SafeString(
            '<span class="tag bad" title="Some samples have no verdict; the score lies between'
            ' these bounds.">incomplete</span>'
        ))  # fmt: skip
    if not cell.comparable:
        said.append(SafeString('<span class="tag warn">other measurement</span>'))
        if cell.differs:
            fields = ", ".join(cell.differs)
            said.append(format_html('<span class="sub">differs in {}</span>', fields))
    return _joined(said)


def _distances(cell: Cell) -> SafeString:
    """How far it lies from each published figure."""
    return _joined([
        format_html(
            '<span class="sub"{}>z = {} from {}, source {}</span>',
            SafeString(' title="more than two re-run errors apart"')
            if abs(z) > _TOLD_APART
            else "",
            signed(z), percent(figure.value), figure.source.number,
        )
        for z, figure in cell.z
    ])  # fmt: skip


def _note(figure: Figure) -> SafeString:
    return format_html('<span class="sub">{}</span>', figure.note) if figure.note else NOTHING


def _whole(value: float | None) -> str:
    """1234.5 → "1,235"."""
    return BLANK if value is None else str(floatformat(value, "0g"))


def _joined(parts: list[SafeString]) -> SafeString:
    return format_html_join("", "{}", ((part,) for part in parts)) if parts else NOTHING


@register.simple_tag
def problem_cell(cell: CellView) -> SafeString:
    """One evaluation's samples of one problem, with its ``td``."""
    side, tally = cell.side, cell.tally
    if tally is None:
        told = SafeString('<span class="quiet small">not drawn</span>')
        return format_html('<td data-label="{}">{}</td>', side.letter, told)
    address = reverse("leaderboard:problem", args=[side.evaluation.pk, tally.problem.pk])
    if not tally.scored:
        return format_html(
            '<td data-label="{}"><a class="quiet small" href="{}">none scored</a></td>',
            side.letter, address,
        )  # fmt: skip
    change = NOTHING
    if cell.change:
        way = "gain" if cell.change > 0 else "loss"
        change = format_html(' <span class="small {}">{}</span>', way, points(cell.change, 0))
    return format_html(
        '<td data-label="{}"><a href="{}">{} {} of {}</a>{}{}</td>',
        side.letter, address, heat(tally.correct, tally.scored), tally.correct, tally.scored,
        change, _majority(cell),
    )  # fmt: skip


def _majority(cell: CellView) -> SafeString:
    if cell.majority is None:
        return NOTHING
    answer = cell.majority
    if len(answer) > MAJORITY_LENGTH:
        answer = truncatechars(answer, MAJORITY_LENGTH)
    share = "" if cell.vote_share is None else f" {percent(cell.vote_share, 0)} %"
    return format_html('<span class="sub"><code>{}</code>{}</span>', answer, share)

"""The leaderboard's page and its CSV."""

from __future__ import annotations

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from evaluator.spreadsheet import Cell as CsvCell
from evaluator.spreadsheet import csv_text
from webapp.core.users import signed_in
from webapp.leaderboard import board, choice, columns, published
from webapp.leaderboard.board import Board, Cell, Row
from webapp.projects.access import works_somewhere


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    """Scores with intervals, of the benchmarks and metrics that the address names."""
    user, chosen = signed_in(request), choice.read(request.GET)
    found = board.build(user, chosen)
    page = Paginator(found.places, board.ROWS_PER_PAGE).get_page(request.GET.get("page"))
    rows = board.with_differences(found, found.read(list(page)))
    context = {
        "board": found,
        "choice": chosen,
        "page": page,
        "rows": rows,
        "sources": _sources(rows),
        "tabs": _tabs(found),
        "alone": _alone(found),
        "menu": _menu(found),
        "texts": [(name, getattr(chosen, name), each) for name, each in found.options.items()],
        "facts": columns.FACTS,
        "sizes": choice.SIZES,
        "kinds": choice.KINDS,
        "publications": choice.PUBLISHED,
        "keys": {column.key for column in found.columns},
        "has_published": found.measured < len(found.places),
        "most_ranked": board.MOST_RANKED,
        "most": columns.MOST,
        "may_launch": works_somewhere(user),
    }
    return render(request, "leaderboard/index.html", context)


def _sources(rows: list[Row]) -> list[published.Source]:
    """Those of the figures that are shown, in order of their numbers."""
    figures = [f for row in rows for cell in row.cells for f in cell.figures]
    figures += [f for row in rows for cell in row.cells for _, f in cell.z]
    return sorted({figure.source for figure in figures}, key=lambda source: source.number)


def _tabs(found: Board) -> list[tuple[str, str, int]]:
    """(name, title, evaluations) of every benchmark with scores, those measured here first."""
    here = [(name, title, count) for name, (title, count) in found.benchmarks.items()]
    elsewhere = {name for model in published.models() for name in model.benchmarks}
    rest = sorted(elsewhere - set(found.benchmarks))
    return here + [(name, columns.title_of(name), 0) for name in rest]


def _alone(found: Board) -> str:
    """The benchmark that all columns belong to; blank where they are several's."""
    names = {column.benchmark for column in found.columns if column.benchmark}
    return names.pop() if len(names) == 1 else ""


def _menu(found: Board) -> list[tuple[str, list[columns.Column]]]:
    """What can be chosen: (benchmark's title, its columns)."""
    titles = {name: title for name, (title, _) in found.benchmarks.items()}
    rated = {key.split(":")[0] for model in published.models() for key in model.figures
             if key.endswith(":rating")}  # fmt: skip
    return [
        (
            title,
            columns.chosen(
                [f"{name}:{metric}" for metric in columns.METRICS]
                + [f"{name}:{metric}" for metric in columns.PROGRAM_METRICS if name in rated],
                titles,
            ),
        )
        for name, title, _ in _tabs(found)
    ]


@require_safe
def as_csv(request: HttpRequest) -> HttpResponse:
    """All rows of the board, not only one page's; shares in percent, intervals beside scores."""
    found = board.build(signed_in(request), choice.read(request.GET))
    header = ["rank", "model", "published", "project"]
    for column in found.columns:
        name = f"{column.title} {column.name}".strip()
        header.append(name)
        if column.is_score:
            header += [f"{name}: {part}" for part in (
                "low", "high", "n", "measurement hash", "evaluation", "completions", "z", "source",
                "other sources",
            )]  # fmt: skip
    text = csv_text(header, (_line(row) for row in found.rows))
    response = HttpResponse(text, content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = 'attachment; filename="leaderboard.csv"'
    return response


def _line(row: Row) -> list[CsvCell]:
    line: list[CsvCell] = [
        row.rank, row.name, "yes" if row.is_published else "", row.projects,
    ]  # fmt: skip
    for cell in row.cells:
        scale = 100 if cell.column.is_share else 1
        line.append(cell.text or _scaled(cell.order, scale))
        if cell.column.is_score:
            line += _beside(cell)
    return line


def _beside(cell: Cell) -> list[CsvCell]:
    """What stands beside a score: interval, n, measurement, evaluation, published sources."""
    each, figures = cell.measured, cell.figures
    rest = "; ".join(f"{100 * f.value:g}: {f.source.title}" for f in figures[1:])
    line: list[CsvCell] = [_scaled(cell.low, 100), _scaled(cell.high, 100)]
    if each is None:
        line += [None] * 4
    else:
        made = "imported" if each.is_imported else "drawn here"
        line += [each.samples, each.measurement_hash, each.pk, made]
    z = cell.z[0][0] if cell.z else None
    return [*line, z, figures[0].source.title if figures else None, rest or None]


def _scaled(value: float | None, scale: int) -> float | None:
    """Rounded to what a person reads: 79.8, not 79.80000000000001."""
    return None if value is None else round(scale * value, 6)

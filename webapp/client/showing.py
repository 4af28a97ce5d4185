"""Words, tables and bars on a terminal. What the server says must not steer it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from evaluator.spreadsheet import csv_text
from evaluator.terminal import printable
from webapp.client.models import RunDetail

_WIDEST = 60  # characters of a cell


def say(line: str) -> None:
    """A line on standard output."""
    typer.echo(printable(line))


def complain(sentence: str) -> None:
    """A line on standard error."""
    typer.echo(printable(sentence), err=True)


def percent(share: float | None) -> str:
    """A share in percent; undefined is blank."""
    return "" if share is None else f"{100 * share:.1f} %"


def interval(low: float | None, high: float | None) -> str:
    """Two shares in percent."""
    return "" if low is None or high is None else f"{100 * low:.1f} – {100 * high:.1f} %"


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Columns as wide as what stands in them, numbers to the right."""
    if not rows:
        say("None.")
        return
    texts = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *texts, strict=True)]
    numbers = [
        all(isinstance(value, int | float) for value in column)
        for column in zip(*rows, strict=True)
    ]

    def line(cells: Sequence[str]) -> str:
        placed = (
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(cells, widths, numbers, strict=True)
        )
        return "  ".join(placed).rstrip()

    for cells in (list(header), *texts):
        typer.echo(line(cells))


def csv_rows(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """CSV that no spreadsheet takes for formulas."""
    sys.stdout.write(csv_text(header, rows))


def _cell(value: Any) -> str:
    text = "" if value is None else printable(str(value))
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"


@contextmanager
def byte_bar(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar of bytes on standard error; what is yielded moves it on."""
    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(),
        TransferSpeedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=_console(), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(_cell(name), total=total)
        yield lambda count: progress.advance(task, count)


@contextmanager
def stage_bars() -> Iterator[Callable[[RunDetail], None]]:
    """A bar for each stage of a run on standard error; what is yielded takes each new look."""
    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(),
        TextColumn("{task.fields[told]}", markup=False),
    )  # fmt: skip
    tasks: dict[int, TaskID] = {}
    with Progress(*columns, console=_console(), disable=not sys.stderr.isatty()) as progress:

        def show(run: RunDetail) -> None:
            for place, stage in enumerate(run.stages):
                told = stage.state
                if stage.total and stage.state == "running":
                    told = f"{stage.done:,} of {stage.total:,} {stage.unit}"
                if stage.eta_seconds is not None:
                    told += f", {stage.eta_seconds:,.0f} s left"
                if place not in tasks:
                    tasks[place] = progress.add_task(_cell(stage.title), total=1.0, told="")
                progress.update(tasks[place], completed=stage.fraction or 0.0, told=_cell(told))

        yield show


def _console() -> Console:
    return Console(stderr=True)

"""CSV that a spreadsheet opens as data: what a model or a person wrote never becomes a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

# What a spreadsheet takes for the beginning of a formula; a tab or a line's end may hide one.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")

Cell = str | int | float | bool | None


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """``rows`` under ``header`` as CSV (RFC 4180); undefined is blank, numbers stay numbers."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow([_cell(name) for name in header])
    writer.writerows([_cell(value) for value in row] for row in rows)
    return out.getvalue()


def _cell(value: Cell) -> Cell:
    """A text that begins like a formula gets an apostrophe, which spreadsheets do not show."""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA_STARTS) else value.replace("\x00", "\ufffd")
    return value

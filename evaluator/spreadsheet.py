"""CSV that a spreadsheet opens as data: what a model or a person wrote never becomes a formula."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence

# What a spreadsheet takes for the beginning of a formula, in Japan also the wide forms.
_SIGNS = "=+@\\-\uff1d\uff0b\uff20\uff0d"
# Also where it takes a cell to begin whose language separates by semicolons or tabs: quotes are
# then no quotes to it, and lines end where they do. A blank may hide the sign.
_BEGINS = re.compile(rf'(^|[;\t\r\n])([\s"]*)(?=[{_SIGNS}])')

Cell = str | int | float | bool | None


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """``rows`` under ``header`` as CSV (RFC 4180); undefined is blank, numbers stay numbers."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow([_cell(name) for name in header])
    writer.writerows([_cell(value) for value in row] for row in rows)
    return out.getvalue()


def _cell(value: Cell) -> Cell:
    """A formula's sign gets an apostrophe, which spreadsheets do not show before a cell's text."""
    if not isinstance(value, str):
        return value
    text = _BEGINS.sub(r"\1\2'", value).replace("\x00", "\ufffd")
    return f"'{text}" if text.startswith(("\t", "\r", "\n")) else text

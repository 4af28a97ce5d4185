"""Pages by key: the next one begins after the last row of this one, however many came meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from django.db.models import Model, QuerySet
from pydantic import Field

from webapp.api.framework import Schema

Row = TypeVar("Row")
Rows = TypeVar("Rows", bound=Model)

MOST = 200
LARGEST_KEY = 2**63 - 1


class Paged(Schema):
    """Which page of a list."""

    after: int | None = Field(
        None, ge=0, le=LARGEST_KEY, description="`next` of the page before; none: from the start."
    )
    limit: int = Field(50, ge=1, le=MOST, description="Rows at most.")


class Page(Schema, Generic[Row]):
    """Some rows, and where the next page begins."""

    items: list[Row]
    next: int | None = Field(description="Send it as `after` to read on; null: that was all.")


def page(
    rows: QuerySet[Rows], wanted: Paged, *, key: str = "pk", newest: bool = True
) -> dict[str, Any]:
    """One page of rows, by falling keys (the newest first) or, else, by rising ones."""
    if wanted.after is not None:
        rows = rows.filter(**{f"{key}__{'lt' if newest else 'gt'}": wanted.after})
    found = list(rows.order_by(f"-{key}" if newest else key)[: wanted.limit + 1])
    return cut(found, wanted, getattr(found[-2], key) if len(found) > 1 else 0)


def cut(found: Sequence[Any], wanted: Paged, last: int) -> dict[str, Any]:
    """The page of ``found``, which holds a row more than was wanted where there is more.

    ``last`` is the key of the last row wanted.
    """
    more = len(found) > wanted.limit
    return {"items": found[: wanted.limit], "next": last if more else None}

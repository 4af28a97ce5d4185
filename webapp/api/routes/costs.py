"""What work cost."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any, Literal

from django.conf import settings
from django.http import HttpRequest
from django.utils import timezone
from pydantic import Field

from webapp.api.framework import Query, Router, Schema
from webapp.core.errors import UserError
from webapp.core.users import signed_in
from webapp.runs import cost_views, ledger
from webapp.runs.ledger import Amounts, Cost

router = Router(tags=["costs"])


class AmountsOut(Schema):
    """What leases took."""

    device_hours: float
    cpu_hours: float
    wall_seconds: float
    prompt_tokens: float
    completion_tokens: float
    endpoint_money: float | None
    money: float | None = Field(description="null: nothing of it has a price.")


class CostOut(Schema):
    """A line: what some leases took, and what of it had to be done again."""

    name: str
    leases: int
    unfinished: int = Field(description="Leases that did not finish their shard.")
    spent: AmountsOut
    lost: AmountsOut


class CostsOut(Schema):
    """Costs over a period."""

    since: date
    until: date
    currency: str
    total: CostOut
    rows: list[CostOut]


class CostsWanted(Schema):
    """The period, and what a line is for."""

    by: Literal["run", "person", "student", "kind"] = "run"
    since: date | None = Field(None, description="The first day; null: 30 days ago.")
    until: date | None = Field(None, description="The last day; null: today.")


def _amounts(of: Amounts) -> dict[str, Any]:
    return {name: getattr(of, name) for name in AmountsOut.model_fields}


def _line(name: str, cost: Cost) -> dict[str, Any]:
    return {
        "name": name, "leases": cost.leases, "unfinished": cost.unfinished,
        "spent": _amounts(cost.spent), "lost": _amounts(cost.lost),
    }  # fmt: skip


@router.get("", response=CostsOut)
def costs_list(request: HttpRequest, wanted: Query[CostsWanted]) -> dict[str, Any]:
    """What leases took that ended in a period, the dearest first."""
    person = signed_in(request)
    until = wanted.until or timezone.now().date()
    if not all(2000 <= day.year < 2200 for day in (wanted.since or until, until)):
        raise UserError("since: give days of this century.", "since")
    since = wanted.since or until - timedelta(days=cost_views.DAYS - 1)
    if since > until:
        raise UserError("since: give the earlier day first.", "since")
    entries = cost_views.entries_of(person, since, until)
    rows = sorted(cost_views.GROUPS[wanted.by][2](entries, person), key=cost_views.dearest)
    total = ledger.total(row.cost for row in rows)
    return {
        "since": since, "until": until, "currency": settings.RETORT_CURRENCY,
        "total": _line("all", total), "rows": [_line(row.name, row.cost) for row in rows],
    }  # fmt: skip

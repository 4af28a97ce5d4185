"""What work cost: a page by run, person, student and kind of stage over a period, and as CSV."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from django.conf import settings
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from evaluator.spreadsheet import Cell, csv_text
from webapp.checkpoints.models import Checkpoint
from webapp.core.models import User
from webapp.core.users import signed_in
from webapp.projects.access import seen_by
from webapp.runs import ledger
from webapp.runs.ledger import Cost
from webapp.runs.models import LedgerEntry, Run, Stage

PAGE = 50
DAYS = 30  # shown unless somebody asks for another period


@dataclass(frozen=True, slots=True)
class CostRow:
    """A line of a cost table."""

    name: str
    cost: Cost
    url: str = ""
    sub: str = ""


@dataclass(frozen=True, slots=True)
class CostTable:
    """Rows and their sum; money has a column only where something has a price."""

    rows: list[CostRow]
    first: str  # what a row is
    total: Cost

    @property
    def has_money(self) -> bool:
        """Whether any price is known."""
        return self.total.spent.money is not None

    @property
    def has_devices(self) -> bool:
        """Whether any device was used."""
        return bool(self.total.spent.device_seconds)

    @property
    def currency(self) -> str:
        """Of the money."""
        return settings.RETORT_CURRENCY


def of_run(run: Run, stages: list[Stage]) -> CostTable | None:
    """The run's costs by stage; None before anything was spent."""
    costs = ledger.of_stages(run)
    rows = [CostRow(stage.title, costs[stage.pk]) for stage in stages if stage.pk in costs]
    return _table(rows, "Stage") if rows else None


def of_checkpoint(checkpoint: Checkpoint, user: User) -> CostTable | None:
    """What a checkpoint took in runs that the person sees, from its teacher's traces on.

    None where nothing was spent.
    """
    cost = ledger.cost_of(checkpoint, user)
    steps = (
        ("Traces", cost.traces, "checking the recipe, drawing and filtering"),
        ("Training", cost.training, ""),
        ("Evaluation", cost.evaluation, "every measurement of it"),
    )
    rows = [CostRow(name, part, sub=sub) for name, part, sub in steps if part.leases]
    return _table(rows, "For") if rows else None


def _table(rows: list[CostRow], first: str) -> CostTable:
    return CostTable(rows, first, ledger.total(row.cost for row in rows))


# --- the page


def _by_run(entries: QuerySet[LedgerEntry], user: User) -> list[CostRow]:
    costs = ledger.grouped(entries, "run_id")
    runs = Run.objects.select_related("owner").defer("config").in_bulk([pk for pk in costs if pk])
    return [
        CostRow(runs[pk].name, cost, runs[pk].get_absolute_url(), runs[pk].owner.get_username())
        if pk in runs
        else CostRow("deleted runs", cost)
        for pk, cost in costs.items()
    ]


def _by_person(entries: QuerySet[LedgerEntry], user: User) -> list[CostRow]:
    costs = ledger.grouped(entries, "user_id")
    people = User.objects.in_bulk(list(costs))
    return [CostRow(people[pk].get_username(), cost) for pk, cost in costs.items()]


def _by_student(entries: QuerySet[LedgerEntry], user: User) -> list[CostRow]:
    # Of a foreign student that was measured in a run of one's own the name is no secret.
    students = Checkpoint.objects.filter(produced_by__isnull=False).order_by("pk")
    taken = [each for each in ledger.of_students(students, entries) if each.total.leases]
    chosen = Checkpoint.objects.filter(pk__in=[each.checkpoint.pk for each in taken])
    seen = set(seen_by(user, chosen).values_list("pk", flat=True))
    return [
        CostRow(
            each.checkpoint.name,
            each.total,
            each.checkpoint.get_absolute_url() if each.checkpoint.pk in seen else "",
        )
        for each in taken
    ]


def _by_kind(entries: QuerySet[LedgerEntry], user: User) -> list[CostRow]:
    return [CostRow(kind, cost) for kind, cost in ledger.grouped(entries, "kind").items()]


GROUPS: dict[str, tuple[str, str, Callable[[QuerySet[LedgerEntry], User], list[CostRow]]]] = {
    "run": ("runs", "Run", _by_run),
    "person": ("people", "Person", _by_person),
    "student": ("students", "Student", _by_student),
    "kind": ("kinds of stage", "Kind of stage", _by_kind),
}


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    """What leases took that ended in a period, by one of ``GROUPS``; ``?csv`` downloads it.

    Of runs that one sees, and one's own that are gone.
    """
    user = signed_in(request)
    since, until = _period(request)
    by = request.GET.get("by", "")
    by = by if by in GROUPS else "run"
    _, first, rows_of = GROUPS[by]
    rows = sorted(rows_of(entries_of(user, since, until), user), key=dearest)
    if "csv" in request.GET:
        return _as_csv(rows, first, f"costs-by-{by}-{since}-{until}.csv")
    # A student's costs are part of its run's, and evaluations of others are nobody's student's.
    whole = ledger.total(row.cost for row in rows)
    page = Paginator(rows, PAGE).get_page(request.GET.get("page"))
    context = {
        "by": by,
        "groups": [(key, title) for key, (title, _, _) in GROUPS.items()],
        "since": since.isoformat(),
        "until": until.isoformat(),
        "page": page,
        "table": CostTable(list(page), first, whole),
        "device_price": settings.RETORT_DEVICE_HOUR_PRICE,
        "cpu_price": settings.RETORT_CPU_HOUR_PRICE,
        "currency": settings.RETORT_CURRENCY,
    }
    return render(request, "costs/index.html", context)


def entries_of(user: User, since: date, until: date) -> QuerySet[LedgerEntry]:
    """What ended from the one day to the other, as far as the person may see it."""
    return ledger.seen_entries(user).filter(
        ended_at__gte=_start(since), ended_at__lt=_start(until + timedelta(days=1))
    )


def dearest(row: CostRow) -> tuple[float, float, float, str]:
    """Sorts the lines by money, device time, CPU time, name."""
    spent = row.cost.spent
    return (-(spent.money or 0), -spent.device_seconds, -spent.cpu_seconds, row.name)


def _period(request: HttpRequest) -> tuple[date, date]:
    """The days asked for, or the last ``DAYS``; the earlier one first."""
    today = timezone.now().date()
    until = _day(request.GET.get("until", "")) or today
    since = _day(request.GET.get("since", "")) or until - timedelta(days=DAYS - 1)
    return (since, until) if since <= until else (until, since)


def _day(text: str) -> date | None:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return day if 2000 <= day.year < 2200 else None


def _start(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


_COLUMNS = (
    "device_hours", "cpu_hours", "wall_seconds", "prompt_tokens", "completion_tokens",
    "endpoint_money", "money",
)  # fmt: skip


def _as_csv(rows: list[CostRow], first: str, name: str) -> HttpResponse:
    """Hours and tokens in full; blank where there is no price."""
    head = [first.lower(), "leases", "unfinished leases", *(c.replace("_", " ") for c in _COLUMNS)]
    head += [f"lost {column.replace('_', ' ')}" for column in _COLUMNS]

    def line(row: CostRow) -> list[Cell]:
        amounts = [
            getattr(part, column) for part in (row.cost.spent, row.cost.lost) for column in _COLUMNS
        ]
        rounded = [None if value is None else round(value, 6) for value in amounts]
        return [row.name, row.cost.leases, row.cost.unfinished, *rounded, settings.RETORT_CURRENCY]

    text = csv_text([*head, "currency"], map(line, rows))
    response = HttpResponse(text, content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response

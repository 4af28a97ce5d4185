"""The cost ledger: what every lease took, added up by stage, run, person and student.

Entries are written by the database when a lease ends (ledger.sql); here they are only read. Seconds
are counted as they are; money is what has a price, and blank where nothing has: endpoints' money
stands in the entries, by the prices of the moment, devices and CPUs cost what the settings say now.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from django.conf import settings
from django.db.models import Case, Count, F, FloatField, Q, QuerySet, Sum, Value, When

from webapp.checkpoints.models import Checkpoint
from webapp.core.models import User
from webapp.projects.access import projects_of
from webapp.runs.models import LedgerEntry, Run

# What makes a student; what else its run does measures it, or others.
TRACE_KINDS = ("preflight", "generate", "filter")
TRAIN_KINDS = ("train",)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a worker says of a lease that it holds: the whole so far, not what was added."""

    devices: int = 0  # held for the child
    cpu_seconds: float = 0.0  # of the child and its descendants, under this lease
    prompt_tokens: int = 0  # drawn under this lease
    completion_tokens: int = 0
    uncounted: int = 0  # samples whose tokens the engine did not count
    cause: str = ""  # why the lease is about to fail, where that has a name of its own

    def to_json(self) -> dict[str, Any]:
        """What is kept on the shard until the lease ends; without what is nought."""
        return {key: value for key, value in asdict(self).items() if value} or {"devices": 0}


@dataclass(frozen=True, slots=True)
class Amounts:
    """Seconds, tokens and an endpoint's money."""

    wall_seconds: float = 0.0
    device_seconds: float = 0.0
    cpu_seconds: float = 0.0
    prompt_tokens: float = 0.0
    completion_tokens: float = 0.0
    endpoint_money: float | None = None  # None: no endpoint, or nothing known

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(
            self.wall_seconds + other.wall_seconds,
            self.device_seconds + other.device_seconds,
            self.cpu_seconds + other.cpu_seconds,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            _plus(self.endpoint_money, other.endpoint_money),
        )

    @property
    def tokens(self) -> float:
        """Prompts' and completions'."""
        return self.prompt_tokens + self.completion_tokens

    @property
    def device_hours(self) -> float:
        """Hours × devices."""
        return self.device_seconds / 3600

    @property
    def cpu_hours(self) -> float:
        """Hours of one CPU."""
        return self.cpu_seconds / 3600

    @property
    def money(self) -> float | None:
        """What has a price, in RETORT_CURRENCY; None where nothing has."""
        parts: list[float | None] = [self.endpoint_money]
        if self.device_seconds and settings.RETORT_DEVICE_HOUR_PRICE is not None:
            parts.append(self.device_hours * settings.RETORT_DEVICE_HOUR_PRICE)
        if self.cpu_seconds and settings.RETORT_CPU_HOUR_PRICE is not None:
            parts.append(self.cpu_hours * settings.RETORT_CPU_HOUR_PRICE)
        known = [part for part in parts if part is not None]
        return sum(known) if known else None


def _plus(one: float | None, other: float | None) -> float | None:
    """The sum of what is known."""
    if one is None or other is None:
        return other if one is None else one
    return one + other


@dataclass(frozen=True, slots=True)
class Cost:
    """What some leases took, and how much of it was lost: done by another lease once more."""

    leases: int = 0
    unfinished: int = 0  # leases that did not finish their shard
    unpriced: int = 0  # leases that asked an endpoint for money that is not known
    spent: Amounts = Amounts()
    lost: Amounts = Amounts()

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.leases + other.leases,
            self.unfinished + other.unfinished,
            self.unpriced + other.unpriced,
            self.spent + other.spent,
            self.lost + other.lost,
        )

    @property
    def is_at_least(self) -> bool:
        """Whether money leaves out a device or an endpoint. CPU time is often never priced."""
        devices = self.spent.device_seconds and settings.RETORT_DEVICE_HOUR_PRICE is None
        return bool(self.unpriced or devices)

    @property
    def lost_share(self) -> float | None:
        """Lost of device time, where devices were used, else of CPU time; None for nothing."""
        for name in ("device_seconds", "cpu_seconds", "wall_seconds"):
            if spent := getattr(self.spent, name):
                return float(getattr(self.lost, name) / spent)
        return None


@dataclass(frozen=True, slots=True)
class StudentCost:
    """What a student took. A teacher or base that was made here has a cost of its own."""

    checkpoint: Checkpoint
    traces: Cost  # checking the recipe, the teacher's traces, the filters
    training: Cost
    evaluation: Cost  # all measurements of it, in whichever run

    @property
    def making(self) -> Cost:
        """Without the measurements."""
        return self.traces + self.training

    @property
    def total(self) -> Cost:
        """Everything."""
        return self.making + self.evaluation


@dataclass(frozen=True, slots=True)
class CostPerPoint:
    """What a point of pass@1 gained over a baseline took to make."""

    points: float  # gained, in percentage points; positive
    cost: Cost  # of making the student

    @property
    def device_hours(self) -> float | None:
        """Per point; None where no device was used."""
        return self.cost.spent.device_hours / self.points or None

    @property
    def cpu_hours(self) -> float | None:
        """Per point."""
        return self.cost.spent.cpu_hours / self.points or None

    @property
    def money(self) -> float | None:
        """Per point; None without prices."""
        money = self.cost.spent.money
        return None if money is None else money / self.points


_SUMS = [each.name for each in fields(Amounts)]


def _aggregates() -> dict[str, Any]:
    spent = {f"spent_{name}": Sum(name) for name in _SUMS}
    lost = {
        f"lost_{name}": Sum(F(name) * F("lost_share"), output_field=FloatField()) for name in _SUMS
    }
    counts = {
        "leases": Count("pk"),
        "unfinished": Count("pk", filter=~Q(ended=LedgerEntry.Ended.FINISHED)),
        "unpriced": Count("pk", filter=Q(asks_endpoint=True, endpoint_money=None)),
    }
    return spent | lost | counts


def _cost(row: Mapping[str, Any]) -> Cost:
    def amounts(prefix: str) -> Amounts:
        values = {name: row[f"{prefix}_{name}"] for name in _SUMS}
        money = values.pop("endpoint_money")
        return Amounts(**{name: value or 0 for name, value in values.items()}, endpoint_money=money)

    counts = {name: row[name] for name in ("leases", "unfinished", "unpriced")}
    return Cost(**counts, spent=amounts("spent"), lost=amounts("lost"))


def seen_entries(user: User) -> QuerySet[LedgerEntry]:
    """The entries of runs that the person sees, and theirs of runs that are gone.

    To a token of one project they are nobody's: of which project those runs were is not known.
    """
    entries = LedgerEntry.objects.all()
    if user.is_staff:
        return entries
    seen = Q(run__project__in=projects_of(user).order_by().values("pk"))
    if user.limited_to is None:
        seen |= Q(run=None, user=user)
    return entries.filter(seen)


def grouped(entries: QuerySet[LedgerEntry], *by: str) -> dict[Any, Cost]:
    """Costs by the values of the fields ``by`` (a tuple where there are several): one query."""
    rows = entries.order_by().values(*by).annotate(**_aggregates()).order_by(*by)
    keyed = {tuple(row[name] for name in by): _cost(row) for row in rows}
    return {key[0]: cost for key, cost in keyed.items()} if len(by) == 1 else dict(keyed)


def total(costs: Iterable[Cost]) -> Cost:
    """Their sum."""
    return sum(costs, Cost())


def of_stages(run: Run) -> dict[int, Cost]:
    """What each stage of the run took, by the stage's primary key."""
    return grouped(LedgerEntry.objects.filter(run=run, stage__isnull=False), "stage_id")


def of_students(
    checkpoints: Iterable[Checkpoint], entries: QuerySet[LedgerEntry]
) -> list[StudentCost]:
    """What each of these took, in two queries; ``entries`` are what counts (of a period, seen)."""
    wanted = list(checkpoints)
    purpose = Case(
        When(kind__in=TRACE_KINDS, then=Value("traces")),
        When(kind__in=TRAIN_KINDS, then=Value("training")),
        default=Value(""),
    )
    runs = {each.produced_by_id for each in wanted if each.produced_by_id is not None}
    making = grouped(
        entries.filter(run__in=runs).annotate(purpose=purpose).exclude(purpose=""),
        "run_id",
        "purpose",
    )
    measured = grouped(
        entries.annotate(student=F("stage__evaluation__checkpoint")).filter(
            student__in=[each.pk for each in wanted]
        ),
        "student",
    )
    return [
        StudentCost(
            each,
            traces=making.get((each.produced_by_id, "traces"), Cost()),
            training=making.get((each.produced_by_id, "training"), Cost()),
            evaluation=measured.get(each.pk, Cost()),
        )
        for each in wanted
    ]


def cost_of(checkpoint: Checkpoint, user: User) -> StudentCost:
    """What the checkpoint took in runs that the person sees; all nought where it took nothing."""
    return of_students([checkpoint], seen_entries(user))[0]

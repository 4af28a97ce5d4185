"""What people may change of whose turn it is: a run's priority, and a person's limit."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from django.db import transaction

from webapp.core.errors import UserError
from webapp.core.models import User
from webapp.projects.access import may_manage
from webapp.projects.models import Membership, Role
from webapp.runs.models import FINAL_STATES, Run

LOWEST, HIGHEST = -100, 100
MOST_SHARDS = 10_000  # of a person at a time

logger = logging.getLogger(__name__)


def changeable(runs: Iterable[Run], by: User) -> frozenset[int]:
    """The keys of those of the runs about which the person decides, in one query."""
    if by.is_staff:
        return frozenset(run.pk for run in runs)
    roles = dict(Membership.objects.filter(user=by).values_list("project_id", "role"))
    return frozenset(
        run.pk
        for run in runs
        if roles.get(run.project_id) == Role.ADMIN
        or (roles.get(run.project_id) == Role.OPERATOR and run.owner_id == by.pk)
    )


def check_priority(priority: int, by: User, *, than: int = 0) -> None:
    """Refuse a priority that is out of range, or above ``than`` where ``by`` is not staff.

    Raises UserError.
    """
    if not LOWEST <= priority <= HIGHEST:
        raise UserError(
            f"priority: choose a whole number from {LOWEST} to {HIGHEST}; 0 is usual.", "priority"
        )
    if priority > than and not by.is_staff:
        raise UserError(
            f"priority: only staff may raise it; choose {than} or less, or ask them.", "priority"
        )


def set_priority(run: Run, priority: int, *, by: User) -> None:
    """Have the run's open shards claimed before, or after, those of other runs.

    Staff may set any priority; the run's owner and admins of its project may lower it. What is
    being done goes on. Raises UserError.
    """
    with transaction.atomic():
        locked = Run.objects.select_for_update(no_key=True).get(pk=run.pk)
        if not may_manage(by, locked):
            raise UserError(
                "priority: only the run's owner and admins of its project may change it; ask them.",
                "priority",
            )
        if locked.state in FINAL_STATES:
            raise UserError(
                f"priority: the run is {locked.state} already; nothing of it waits.", "priority"
            )
        check_priority(priority, by, than=locked.priority)
        Run.objects.filter(pk=run.pk).update(priority=priority)
    logger.info(
        "a run's priority was changed",
        extra={"run": run.pk, "before": locked.priority, "after": priority, "by": by.pk},
    )


def set_limit(person: User, limit: int | None, *, by: User) -> None:
    """Have at most ``limit`` shards of the person's runs done at a time; None: as for everybody.

    Shards above a lowered limit are ended by nobody; no further one is begun. Raises UserError.
    """
    if not by.is_staff:
        raise UserError("limit: only staff may change it; ask them.", "limit")
    if limit is not None and not 0 <= limit <= MOST_SHARDS:
        raise UserError(
            f"limit: choose a whole number from 0 (nothing is begun) to {MOST_SHARDS}, or leave "
            "it empty.",
            "limit",
        )
    with transaction.atomic():
        locked = User.objects.select_for_update(no_key=True).get(pk=person.pk)
        User.objects.filter(pk=person.pk).update(max_running_shards=limit)
    logger.info(
        "a person's limit was changed",
        extra={
            "person": person.pk, "before": locked.max_running_shards, "after": limit, "by": by.pk,
        },
    )  # fmt: skip

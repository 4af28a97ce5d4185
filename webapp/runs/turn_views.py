"""Whose turn it is: open runs with their priorities, people with their limits."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db import transaction
from django.db.models import Count, Exists, OuterRef, Q, QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from webapp.core import audit
from webapp.core.errors import UserError
from webapp.core.models import User
from webapp.core.users import signed_in
from webapp.projects.access import may_manage, projects_of, seen_by
from webapp.projects.models import Membership
from webapp.runs import turns
from webapp.runs.models import FINAL_STATES, Run, Shard, State

PAGE = 50


class PriorityForm(forms.Form):
    """A run's new priority."""

    priority = forms.IntegerField()


class LimitForm(forms.Form):
    """A person's new limit; empty: as for everybody."""

    limit = forms.IntegerField(required=False)


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    """Open runs in the order in which they are served, and people with what they have running.

    Those that one sees: of others' projects neither a run nor a number.
    """
    user = signed_in(request)
    held = Shard.objects.filter(state=State.RUNNING, lease_expires_at__gte=Now())
    held = seen_by(user, held, "stage__run__project")
    busy = dict(held.values_list("stage__run__owner").annotate(Count("pk")).order_by())
    people = Paginator(_people(user), PAGE).get_page(request.GET.get("people"))
    runs = (
        seen_by(user, Run.objects.exclude(state__in=FINAL_STATES))
        .select_related("owner")
        .defer("config")
        .order_by("-priority", "pk")
    )
    page = Paginator(runs, PAGE).get_page(request.GET.get("page"))
    context: dict[str, Any] = {
        "page": page,
        "changeable": turns.changeable(page, user),
        "people": people,
        "rows": [(person, busy.get(person.pk, 0)) for person in people],
        "lowest": turns.LOWEST,
        "highest": turns.HIGHEST,
        "most": turns.MOST_SHARDS,
    }
    return render(request, "runs/turns.html", context)


def _people(user: User) -> QuerySet[User]:
    """Everybody for staff; for others who is in a project that they see, and themselves."""
    active = User.objects.filter(is_active=True).order_by("username")
    if user.is_staff:
        return active
    seen = Membership.objects.filter(user=OuterRef("pk"), project__in=projects_of(user).order_by())
    return active.filter(Q(pk=user.pk) | Exists(seen))


@require_POST
def priority(request: HttpRequest, pk: int) -> HttpResponse:
    """Change a run's priority."""
    user = signed_in(request)
    run = get_object_or_404(seen_by(user, Run.objects.all()), pk=pk)
    if not may_manage(user, run):
        raise PermissionDenied("Only its owner and admins of its project decide about a run.")
    form = PriorityForm(request.POST)
    if not form.is_valid():
        messages.error(request, "priority: give a whole number; 0 is usual.")
        return redirect("runs:turns")
    try:
        with transaction.atomic():
            turns.set_priority(run, form.cleaned_data["priority"], by=user)
            wanted = form.cleaned_data["priority"]
            audit.record(user, "run.priority", run, priority=wanted)
    except UserError as error:
        messages.error(request, error.sentence)
    else:
        messages.success(request, f"{run} has priority {form.cleaned_data['priority']} now.")
    return redirect("runs:turns")


@require_POST
def limit(request: HttpRequest, pk: int) -> HttpResponse:
    """Change how many shards of a person's runs are done at a time."""
    by = signed_in(request)
    if not by.is_staff:
        raise PermissionDenied
    person = get_object_or_404(User, pk=pk)
    form = LimitForm(request.POST)
    if not form.is_valid():
        messages.error(request, "limit: give a whole number, or nothing.")
        return redirect("runs:turns")
    chosen = form.cleaned_data["limit"]
    try:
        with transaction.atomic():
            turns.set_limit(person, chosen, by=by)
            before = person.max_running_shards
            audit.record(by, "account.limit", person, before=before, after=chosen)
    except UserError as error:
        messages.error(request, error.sentence)
    else:
        told = "the usual limit" if chosen is None else f"a limit of {chosen}"
        messages.success(request, f"{person.get_username()} has {told} now.")
    return redirect("runs:turns")

"""The workers page: hosts, their devices, what each worker does, and draining."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from webapp.core import audit
from webapp.core.users import signed_in
from webapp.runs import hosts
from webapp.runs.models import WorkerHeartbeat


def _context(request: HttpRequest) -> dict[str, Any]:
    user = signed_in(request)
    return {"hosts": hosts.overview(user), "unserved": hosts.unserved(user)}


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    """All hosts."""
    return render(request, "runs/workers.html", _context(request))


@require_safe
def live(request: HttpRequest) -> HttpResponse:
    """The part that changes, for polling."""
    return render(request, "runs/_workers.html", _context(request))


@require_POST
def drain(request: HttpRequest, pk: int) -> HttpResponse:
    """Let a worker end what it does and take nothing more, or take it back to work."""
    by = signed_in(request)
    if not by.is_staff:
        raise PermissionDenied("Only administrators of the installation drain workers.")
    worker = get_object_or_404(WorkerHeartbeat, pk=pk)
    draining = request.POST.get("draining") == "1"
    with transaction.atomic():
        hosts.drain(worker, draining=draining)
        audit.record(by, "worker.drain" if draining else "worker.take_back", worker)
    messages.success(
        request,
        f"{worker} ends the shard it is doing and takes no further one."
        if draining
        else f"{worker} takes shards again.",
    )
    return redirect("runs:workers")

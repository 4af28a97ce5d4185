"""Storage, and the pages that name what hangs on something before it goes."""

from __future__ import annotations

from collections.abc import Callable

from django.conf import settings
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from webapp.checkpoints import uploads
from webapp.checkpoints.models import Checkpoint
from webapp.core import audit
from webapp.core.errors import UserError
from webapp.core.models import User
from webapp.core.users import signed_in
from webapp.housekeeping import removal, usage
from webapp.housekeeping.models import ArchivedRun
from webapp.projects.access import managed_by, may_manage, seen_by
from webapp.runs.models import Run

LARGEST = 10


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    """What a person's things take; for administrators the disk, too."""
    user = signed_in(request)
    mine = managed_by(user, Checkpoint.objects.filter(owner=user).exclude(path=""))
    context = {
        "own": usage.own(user),
        "largest": list(mine.order_by("-size_bytes", "pk")[:LARGEST]),
        "used_bytes": uploads.used_bytes(user),
        "quota_bytes": settings.RETORT_UPLOAD_QUOTA_BYTES,
        "upload_days": settings.RETORT_KEEP_UPLOAD_DAYS,
        "work_days": settings.RETORT_KEEP_WORK_DAYS,
        "garbage_hours": settings.RETORT_GARBAGE_HOURS,
    }
    return render(request, "housekeeping/index.html", context)


@require_safe
def disk(request: HttpRequest) -> HttpResponse:
    """The whole store by looking at it, for administrators."""
    if not signed_in(request).is_staff:
        raise PermissionDenied
    found = usage.disk()
    context = {
        "disk": found.parts, "free_bytes": found.free_bytes, "total_bytes": found.total_bytes,
    }  # fmt: skip
    part = request.headers.get("hx-request")
    return render(request, f"housekeeping/{'_' if part else ''}disk.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def checkpoint(request: HttpRequest, pk: int) -> HttpResponse:
    """Archive a checkpoint, delete its files, or delete it."""
    user = signed_in(request)
    row = get_object_or_404(seen_by(user, Checkpoint.objects.all()), pk=pk)
    acts: dict[str, Callable[[], None]] = {
        "delete": lambda: removal.delete_checkpoint(row, by=user),
        "release": lambda: removal.release_files(row, by=user),
    }
    return _remove(request, row, acts, "checkpoints:index")


@require_http_methods(["GET", "HEAD", "POST"])
def run(request: HttpRequest, pk: int) -> HttpResponse:
    """Archive or delete a run."""
    user = signed_in(request)
    row = get_object_or_404(seen_by(user, Run.objects.all()), pk=pk)
    acts: dict[str, Callable[[], None]] = {"delete": lambda: removal.delete_run(row, by=user)}
    return _remove(request, row, acts, "runs:index")


def _remove(
    request: HttpRequest,
    thing: Checkpoint | Run,
    acts: dict[str, Callable[[], None]],
    afterwards: str,
) -> HttpResponse:
    if not may_manage(signed_in(request), thing):
        raise PermissionDenied
    acts |= {
        "archive": lambda: removal.set_archived(thing, archived=True),
        "restore": lambda: removal.set_archived(thing, archived=False),
    }
    if request.method == "POST" and (act := request.POST.get("act", "")) in acts:
        name = str(thing)
        try:
            with transaction.atomic():
                kind = "run" if isinstance(thing, Run) else "checkpoint"
                audit.record(signed_in(request), f"{kind}.{act}", thing)
                acts[act]()
        except UserError as error:
            messages.error(request, error.sentence)
            return redirect(request.path)
        messages.success(request, f"{name} was {_DONE[act]}.")
        return redirect(afterwards) if act == "delete" else redirect(thing)
    return render(request, "housekeeping/remove.html", _context(thing, signed_in(request)))


_DONE = {
    "delete": "deleted", "release": "kept without its files", "archive": "archived",
    "restore": "taken back",
}  # fmt: skip


def _context(thing: Checkpoint | Run, by: User) -> dict[str, object]:
    if isinstance(thing, Checkpoint):
        return {
            "thing": thing,
            "found": removal.dependents_of_checkpoint(thing, by=by),
            "archived": thing.archived_at is not None,
            "can_release": thing.has_files,
        }
    return {
        "thing": thing,
        "found": removal.dependents_of_run(thing, by=by),
        "archived": ArchivedRun.objects.filter(run=thing).exists(),
        "can_release": False,
    }

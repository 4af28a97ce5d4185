"""Bringing checkpoints in: from the browser, from the hub, from a folder of the server."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from webapp.checkpoints import intake, queries, uploads
from webapp.checkpoints.forms import FolderForm, HubForm, UploadForm
from webapp.checkpoints.models import Upload
from webapp.core import audit
from webapp.core.errors import UserError
from webapp.core.users import signed_in
from webapp.projects.access import managed_by, projects_of, require_place
from webapp.projects.forms import chosen_place


@require_http_methods(["GET", "HEAD", "POST"])
def upload(request: HttpRequest) -> HttpResponse:
    """The upload page. Its script sends the files in pieces (tus.py); without it the form does."""
    owner = signed_in(request)
    require_place(owner)
    posted = request.method == "POST"
    form = UploadForm(owner, request.POST, request.FILES) if posted else UploadForm(owner)
    if posted and form.is_valid():
        try:
            row = uploads.receive_whole(
                owner,
                form.cleaned_data["name"],
                form.named_files(request.POST.getlist("paths")),
                form.cleaned_data.get("project"),
            )
        except UserError as error:
            form.add_error(error.field if error.field in form.fields else None, error.sentence)
        else:
            audit.record(owner, "upload.begin", row)
            return redirect(row)
    context = {
        "form": form,
        "unfinished": queries.unfinished_uploads(owner),
        **_shared(request),
    }
    status = 400 if posted else 200
    return render(request, "checkpoints/upload.html", context, status=status)


@require_http_methods(["GET", "HEAD", "POST"])
def from_hub(request: HttpRequest) -> HttpResponse:
    """Have a worker fetch a model by its id and revision."""
    owner = signed_in(request)
    require_place(owner)

    def begin(given: dict[str, Any]) -> Upload:
        name = given["name"] or given["repository"].strip()
        return intake.begin_from_hub(
            owner, name, given["repository"], given["revision"], given.get("project")
        )

    form = HubForm(owner, request.POST or None)
    return _begin_elsewhere(request, form, begin, "checkpoints/hub.html")


@require_http_methods(["GET", "HEAD", "POST"])
def from_folder(request: HttpRequest) -> HttpResponse:
    """Have a worker copy a folder of the server, for administrators."""
    owner = signed_in(request)
    if not owner.is_staff:
        raise PermissionDenied

    def begin(given: dict[str, Any]) -> Upload:
        return intake.begin_from_folder(owner, given["name"], given["folder"], given.get("project"))

    form = FolderForm(owner, request.POST or None)
    return _begin_elsewhere(request, form, begin, "checkpoints/folder.html")


def _begin_elsewhere(
    request: HttpRequest,
    form: forms.Form,
    begin: Callable[[dict[str, Any]], Upload],
    template: str,
) -> HttpResponse:
    if form.is_bound and form.is_valid():
        try:
            with transaction.atomic():
                row = begin(form.cleaned_data)
                audit.record(row.owner, "upload.begin", row, source=row.source, origin=row.origin)
        except UserError as error:
            form.add_error(error.field if error.field in form.fields else None, error.sentence)
        else:
            return redirect(row)
    status = 400 if form.is_bound else 200
    return render(request, template, {"form": form, **_shared(request)}, status=status)


def _shared(request: HttpRequest) -> dict[str, Any]:
    """What every page of bringing something in shows."""
    return {
        "most_files": settings.RETORT_UPLOAD_FILES,
        "used_bytes": uploads.used_bytes(signed_in(request)),
        "quota_bytes": settings.RETORT_UPLOAD_QUOTA_BYTES,
        "takes_folders": signed_in(request).is_staff and bool(settings.RETORT_IMPORT_ROOT),
    }


@require_POST
def begin_upload(request: HttpRequest) -> HttpResponse:
    """Begin an upload of ``name`` with ``paths`` and their ``lengths``; answers as JSON.

    The answer says where each file is sent to, and what to do then.
    """
    owner = signed_in(request)
    require_place(owner)
    paths, lengths = request.POST.getlist("paths"), request.POST.getlist("lengths")
    try:
        if len(paths) != len(lengths) or not all(
            text.isascii() and text.isdigit() and len(text) <= 18 for text in lengths
        ):
            raise UserError("files: every name needs its length in bytes.", "files")
        pairs = list(zip(paths, map(int, lengths), strict=True))
        place = chosen_place(owner, request.POST.get("project", ""))
        with transaction.atomic():
            begun = uploads.begin(owner, request.POST.get("name", ""), pairs, place)
            audit.record(owner, "upload.begin", begun)
    except UserError as error:
        return _refused(error)
    return JsonResponse(_for_script(begun), status=201)


@require_safe
def resume(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """An upload: go on with it, see it being looked at, or what became of it.

    Only who sends it goes on with it; admins of its project may look at it and discard it.
    """
    user = signed_in(request)
    row = get_object_or_404(queries.uploads(user), pk=pk)
    if row.checkpoint is not None:
        _tell_left_out(request, row)
        return redirect(row.checkpoint)
    context = {
        "upload": row,
        "script": _for_script(row),
        "form": UploadForm(user, initial={"name": row.name}),
        "is_own": row.owner_id == user.pk,
        "several": projects_of(user).count() > 1,
        **_shared(request),
    }
    return render(request, "checkpoints/upload.html", context)


@require_safe
def live(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """The part of an upload's page that changes while it is a worker's turn."""
    row = get_object_or_404(queries.uploads(signed_in(request)), pk=pk)
    if row.with_a_worker:
        return render(request, "checkpoints/_upload.html", {"upload": row})
    if row.checkpoint is not None:
        _tell_left_out(request, row)
    response = HttpResponse()
    response["HX-Redirect"] = (row.checkpoint or row).get_absolute_url()
    return response


def _tell_left_out(request: HttpRequest, row: Upload) -> None:
    if row.left_out:
        messages.info(request, f"Not taken, as no model is loaded from them: {row.left_out}.")


@require_POST
def finish_upload(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """A complete upload goes to a worker: ``{"location"}``, or status 400 and why not.

    ``refused`` tells an upload that is no checkpoint, whose bytes are gone, from one that goes on.
    """
    row = get_object_or_404(queries.own_uploads(signed_in(request)), pk=pk)
    try:
        uploads.submit(row)
    except UserError as error:
        row.refresh_from_db()
        return _refused(error, refused=row.state == Upload.State.REFUSED)
    return JsonResponse({"location": row.get_absolute_url()})


@require_POST
def delete_upload(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Forget an upload and what came of it."""
    user = signed_in(request)
    row = get_object_or_404(managed_by(user, Upload.objects.all()), pk=pk)
    with transaction.atomic():
        audit.record(user, "upload.delete", row)
        uploads.delete(row)
    messages.success(request, f"The upload of {row.name} was deleted.")
    return redirect("checkpoints:upload")


def _for_script(row: Upload) -> dict[str, Any]:
    """What static/js/upload.js has to know of an upload."""
    return {
        "page": row.get_absolute_url(),
        "endpoint": reverse("checkpoints:tus-files", args=[row.pk]),
        "finish": reverse("checkpoints:finish", args=[row.pk]),
        "files": [
            {
                "path": file.path,
                "length": file.length_bytes,
                "url": reverse("checkpoints:tus-file", args=[row.pk, file.pk]),
            }
            for file in row.files.all()
        ],
    }


def _refused(error: UserError, **more: bool) -> JsonResponse:
    errors = {error.field or "__all__": [error.sentence]}
    return JsonResponse({"errors": errors, **more}, status=400)

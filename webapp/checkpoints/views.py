"""Checkpoints: list, detail, upload."""

from __future__ import annotations

import uuid
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from webapp.checkpoints import queries, services, uploads
from webapp.checkpoints.forms import UploadForm
from webapp.checkpoints.lineage import lineage_of
from webapp.checkpoints.models import Upload
from webapp.core.errors import UserError
from webapp.core.users import signed_in

PAGE = 50


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    """All checkpoints."""
    page = Paginator(queries.checkpoints(), PAGE).get_page(request.GET.get("page"))
    return render(request, "checkpoints/index.html", {"page": page})


@require_safe
def detail(request: HttpRequest, pk: int) -> HttpResponse:
    """One checkpoint: facts, lineage, evaluations."""
    checkpoint = get_object_or_404(queries.checkpoints(), pk=pk)
    context = {
        "checkpoint": checkpoint,
        "undecontaminated": checkpoint.pk in queries.undecontaminated(),
        "evaluations": list(queries.evaluations_of(checkpoint)),
        "links": lineage_of(checkpoint),
        "children": list(checkpoint.children.only("pk", "name")),
    }
    return render(request, "checkpoints/detail.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def upload(request: HttpRequest) -> HttpResponse:
    """The upload page. Its script sends the files in pieces (tus.py); without it the form does."""
    posted = request.method == "POST"
    form = UploadForm(request.POST, request.FILES) if posted else UploadForm()
    if posted and form.is_valid():
        try:
            return redirect(
                services.receive_upload(
                    owner=signed_in(request),
                    name=form.cleaned_data["name"],
                    files=form.named_files(request.POST.getlist("paths")),
                )
            )
        except UserError as error:
            form.add_error(error.field if error.field in form.fields else None, error.sentence)
    context = {
        "form": form,
        "most_files": settings.RETORT_UPLOAD_FILES,
        "unfinished": queries.unfinished_uploads(signed_in(request)),
    }
    status = 400 if posted else 200
    return render(request, "checkpoints/upload.html", context, status=status)


@require_POST
def begin_upload(request: HttpRequest) -> HttpResponse:
    """Begin an upload of ``name`` with ``paths`` and their ``lengths``; answers as JSON.

    The answer says where each file is sent to, and what to do then.
    """
    paths, lengths = request.POST.getlist("paths"), request.POST.getlist("lengths")
    try:
        if len(paths) != len(lengths) or not all(
            text.isascii() and text.isdigit() and len(text) <= 18 for text in lengths
        ):
            raise UserError("files: every name needs its length in bytes.", "files")
        pairs = list(zip(paths, map(int, lengths), strict=True))
        begun = uploads.begin(signed_in(request), request.POST.get("name", ""), pairs)
    except UserError as error:
        return _refused(error)
    return JsonResponse(_for_script(begun), status=201)


@require_safe
def resume(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """An upload: go on with it, or what became of it."""
    row = get_object_or_404(queries.uploads(), pk=pk, owner=signed_in(request))
    if row.checkpoint is not None:
        return redirect(row.checkpoint)
    context = {
        "upload": row,
        "most_files": settings.RETORT_UPLOAD_FILES,
        "script": _for_script(row),
        "form": UploadForm(initial={"name": row.name}),
    }
    return render(request, "checkpoints/upload.html", context)


@require_POST
def finish_upload(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Check a complete upload: ``{"location"}``, or status 400 and why not."""
    row = get_object_or_404(Upload, pk=pk, owner=signed_in(request))
    try:
        checkpoint = uploads.finish(row)
    except UserError as error:
        return _refused(error)
    return JsonResponse({"location": checkpoint.get_absolute_url()})


@require_POST
def delete_upload(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Forget an upload and what came of it."""
    row = get_object_or_404(Upload, pk=pk, owner=signed_in(request))
    try:
        uploads.delete(row)
    except UserError as error:
        messages.error(request, error.sentence)
        return redirect(row)
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


def _refused(error: UserError) -> JsonResponse:
    return JsonResponse({"errors": {error.field or "__all__": [error.sentence]}}, status=400)

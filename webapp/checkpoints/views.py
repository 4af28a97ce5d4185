"""Checkpoints: list, detail, upload."""

from __future__ import annotations

from django.conf import settings
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from webapp.checkpoints import queries, services
from webapp.checkpoints.forms import UploadForm
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
        "evaluations": list(queries.evaluations_of(checkpoint)),
        "children": list(checkpoint.children.only("pk", "name")),
    }
    return render(request, "checkpoints/detail.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def upload(request: HttpRequest) -> HttpResponse:
    """Receive a checkpoint's folder.

    The script of the page asks for JSON: ``{"location"}`` or, with status 400, ``{"errors":
    {field: [sentence]}}``. Without it the form is an ordinary one.
    """
    wants_json = request.headers.get("accept") == "application/json"
    posted = request.method == "POST"
    form = UploadForm(request.POST, request.FILES) if posted else UploadForm()
    if posted:
        if form.is_valid():
            try:
                checkpoint = services.receive_upload(
                    owner=signed_in(request),
                    name=form.cleaned_data["name"],
                    files=form.named_files(request.POST.getlist("paths")),
                )
            except UserError as error:
                field = error.field if error.field in form.fields else None
                form.add_error(field, error.sentence)
            else:
                if wants_json:
                    return JsonResponse({"location": checkpoint.get_absolute_url()})
                return redirect(checkpoint)
        if wants_json:
            return JsonResponse({"errors": form.errors}, status=400)
    status = 400 if posted else 200
    context = {"form": form, "most_files": settings.RETORT_UPLOAD_FILES}
    return render(request, "checkpoints/upload.html", context, status=status)

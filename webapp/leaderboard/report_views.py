"""An evaluation's reports: small forms at once, large ones made by a worker, and the key."""

from __future__ import annotations

from django.contrib import messages
from django.db import transaction
from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from evaluator.errors import EvaluatorError, StoreError
from webapp.core import audit, store
from webapp.core.errors import UserError
from webapp.core.users import signed_in
from webapp.leaderboard import reports
from webapp.leaderboard.closely_views import found_evaluation
from webapp.leaderboard.models import Report
from webapp.runs.models import Evaluation

# What each form is for, in the order of the page.
WORDS = {
    "html": "One page with its charts; opens without a network.",
    "pdf": "The same page, to print.",
    "json": "Everything for programs, every sample's figures.",
    "csv": "A row for each sample, for a spreadsheet.",
    "parquet": "The same rows, typed, for data tools.",
    "zip": "All forms, the completions and a signed manifest: to verify and to score again.",
}


def _graded(request: HttpRequest, pk: int) -> Evaluation:
    found = found_evaluation(request, pk)
    if not found.metrics:
        raise Http404("This evaluation has no figures yet.")
    return found


@require_safe
def index(request: HttpRequest, pk: int) -> HttpResponse:
    """The forms that there are, and those that were made."""
    return render(request, "leaderboard/reports.html", _context(request, _graded(request, pk)))


@require_safe
def live(request: HttpRequest, pk: int) -> HttpResponse:
    """The forms, for polling while one is being made."""
    return render(request, "leaderboard/_reports.html", _context(request, _graded(request, pk)))


def _context(request: HttpRequest, found: Evaluation) -> dict[str, object]:
    private = reports.is_private(found)
    texts = private and request.GET.get("private_texts") == "yes"
    made = {row.form: row for row in reports.newest(found) if row.private_texts == texts}
    rows = [
        {
            "form": form, "words": words, "made": made.get(form),
            "address": reverse(f"leaderboard:report_{form}", args=[found.pk])
            if form in reports.AT_ONCE
            else "",
        }
        for form, words in WORDS.items()
    ]  # fmt: skip
    waiting = any(row.state == Report.State.QUEUED for row in made.values())
    return {"evaluation": found, "rows": rows, "private": private, "texts": texts, "live": waiting}


@require_safe
def report(request: HttpRequest, pk: int, form: str) -> HttpResponse:
    """A form that is made while one waits."""
    found = _graded(request, pk)
    if form not in reports.AT_ONCE:
        raise Http404
    texts = request.GET.get("private_texts") == "yes"
    try:
        body = reports.at_once(found, form, private_texts=texts)
    except (EvaluatorError, UserError) as error:
        messages.error(request, f"The report could not be made: {error}")
        return redirect("leaderboard:reports", pk)
    response = HttpResponse(body, content_type=reports.CONTENT_TYPES[form])
    response["Content-Disposition"] = f'attachment; filename="evaluation-{pk}.{form}"'
    return response


@require_POST
def ask(request: HttpRequest, pk: int) -> HttpResponse:
    """Have a worker make a form."""
    found = _graded(request, pk)
    texts = request.POST.get("private_texts") == "yes"
    user, form = signed_in(request), request.POST.get("format", "")
    try:
        with transaction.atomic():
            row = reports.ask_for(user, found, form, private_texts=texts)
            audit.record(user, "report.ask", row, private_texts=row.private_texts)
    except UserError as error:
        messages.error(request, error.sentence)
    response = redirect("leaderboard:reports", pk)
    if texts:
        response["Location"] += "?private_texts=yes"
    return response


@require_safe
def download(request: HttpRequest, pk: int, report: int) -> FileResponse:
    """A report that a worker made."""
    row = get_object_or_404(
        Report, pk=report, evaluation=found_evaluation(request, pk), state=Report.State.READY
    )
    try:
        body = store.fetch(row.path).open("rb")
    except (OSError, StoreError, UserError):
        raise Http404 from None
    return FileResponse(
        body, as_attachment=True, filename=f"evaluation-{pk}.{row.form}",
        content_type=reports.CONTENT_TYPES[row.form],
    )  # fmt: skip


@require_safe
def key(request: HttpRequest) -> HttpResponse:
    """The public key that this installation's bundles are signed with."""
    pem, fingerprint = reports.public_key()
    if request.GET.get("as") == "pem":
        response = HttpResponse(pem, content_type="application/x-pem-file")
        response["Content-Disposition"] = 'attachment; filename="retort_public_key.pem"'
        return response
    context = {"pem": pem.decode(), "fingerprint": fingerprint}
    return render(request, "leaderboard/signing_key.html", context)

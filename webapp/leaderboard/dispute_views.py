"""Disputing outcomes: the form's target, the list, withdrawing, the export."""

from __future__ import annotations

from django.contrib import messages
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from webapp.core import audit
from webapp.core.errors import UserError
from webapp.core.users import signed_in
from webapp.leaderboard import disputes, reports
from webapp.leaderboard.closely_views import disputed_context, found_evaluation
from webapp.leaderboard.models import Dispute
from webapp.runs.models import Completion

LISTED = 500


@require_safe
def index(request: HttpRequest, pk: int) -> HttpResponse:
    """Every dispute of an evaluation, withdrawn ones too."""
    found = found_evaluation(request, pk)
    rows = Dispute.objects.filter(evaluation=found).select_related(
        "problem", "author", "withdrawn_by"
    )
    context = {
        "evaluation": found,
        "disputed": disputed_context(found),
        "rows": list(rows[:LISTED]),
        "listed": LISTED,
        "may_dispute": disputes.may_dispute(signed_in(request), found),
        "private": reports.is_private(found),
    }
    return render(request, "leaderboard/disputes.html", context)


@require_safe
def score(request: HttpRequest, pk: int) -> HttpResponse:
    """The score with disputes, for polling until it is worked out."""
    context = {"disputed": disputed_context(found_evaluation(request, pk))}
    if context["disputed"] is None:
        raise Http404
    return render(request, "leaderboard/_disputed.html", context)


@require_POST
def dispute(request: HttpRequest, pk: int, problem: int, sample: int) -> HttpResponse:
    """Dispute one sample's outcome."""
    completion = get_object_or_404(
        Completion.objects.select_related("evaluation__run"),
        evaluation=found_evaluation(request, pk), problem=problem, sample=sample,
    )  # fmt: skip
    user, claim = signed_in(request), request.POST.get("claim", "")
    try:
        with transaction.atomic():
            made = disputes.dispute(
                user, completion, claim, request.POST.get("reason", ""),
                alike=bool(request.POST.get("alike")),
            )  # fmt: skip
            audit.record(user, "dispute.create", made[0], claim=claim, samples=len(made))
    except UserError as error:
        messages.error(request, error.sentence)
    else:
        more = f" of {len(made)} samples" if len(made) > 1 else ""
        messages.success(
            request, f"Your dispute{more} is kept beside the grader's verdict and scored with it."
        )
    return redirect(f"{reverse('leaderboard:problem', args=[pk, problem])}?sample={sample}")


@require_POST
def withdraw(request: HttpRequest, pk: int, dispute: int) -> HttpResponse:
    """Take a dispute back."""
    found = get_object_or_404(
        Dispute.objects.select_related("evaluation__run"),
        pk=dispute,
        evaluation=found_evaluation(request, pk),
    )
    user = signed_in(request)
    with transaction.atomic():
        if disputes.withdraw(user, found):
            audit.record(user, "dispute.withdraw", found)
    messages.success(request, "The dispute is withdrawn; it stays on record.")
    if request.POST.get("back") == "sample":
        address = reverse("leaderboard:problem", args=[pk, found.problem_id])
        return redirect(f"{address}?sample={found.sample}")
    return redirect("leaderboard:disputes", pk)


@require_safe
def export(request: HttpRequest, pk: int) -> HttpResponse:
    """The open disputes as JSONL: golden grading cases, and input of ``report --disputes``."""
    found = found_evaluation(request, pk)
    body = "".join(disputes.golden_lines(found))
    response = HttpResponse(body.encode(errors="replace"), content_type="application/jsonl")
    response["Content-Disposition"] = f'attachment; filename="disputes-{pk}.jsonl"'
    return response

"""Reports of evaluations: small forms at once, large ones made by a worker."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from django.db import transaction
from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from pydantic import Field

from evaluator.errors import EvaluatorError, StoreError
from webapp.api.auth import WRITE
from webapp.api.framework import Query, Router, Schema
from webapp.api.routes.evaluations import found
from webapp.api.schemas import In, one_of
from webapp.core import audit, store
from webapp.core.errors import UserError
from webapp.core.users import signed_in
from webapp.leaderboard import reports
from webapp.leaderboard.models import Report
from webapp.runs.models import Evaluation

router = Router(tags=["reports"])
key_router = Router(tags=["reports"])


class ReportOut(Schema):
    """A report that a worker makes, or has made."""

    id: int
    form: str
    private_texts: bool
    state: one_of(Report.State.values)  # type: ignore[valid-type]
    size_bytes: int | None
    sha256: str
    error: str
    created_at: datetime
    made_at: datetime | None


class AskIn(In):
    """Which form; of a private benchmark, whether its texts are in it."""

    form: Literal["pdf", "zip"] = Field(description="zip: the signed bundle.")
    private_texts: bool = False


class AtOnce(Schema):
    """Of a private benchmark, whether its texts are in it."""

    private_texts: bool = False


class KeyOut(Schema):
    """What bundles of this installation are signed with."""

    pem: str
    fingerprint: str


_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FILES = {
    "responses": {
        200: {
            "description": "The report.",
            "content": {
                kind.partition(";")[0]: {} if "json" in kind else _BINARY
                for kind in reports.CONTENT_TYPES.values()
            },
        }
    }
}


def _graded(request: HttpRequest, pk: int) -> Evaluation:
    evaluation = found(request, pk)
    if not evaluation.metrics:
        raise UserError("form: this evaluation has no figures yet; wait for its end.", "form")
    return evaluation


@router.get("/{int:pk}/reports", response=list[ReportOut])
def reports_list(request: HttpRequest, pk: int) -> list[Report]:
    """Reports that workers make or made: the newest of each form."""
    return reports.newest(found(request, pk))


@router.post("/{int:pk}/reports", response={201: ReportOut}, auth=WRITE)
def reports_ask(request: HttpRequest, pk: int, body: AskIn) -> Any:
    """Have a worker make a form that takes its time; ask for the list until it is ready."""
    person, evaluation = signed_in(request), _graded(request, pk)
    with transaction.atomic():
        row = reports.ask_for(person, evaluation, body.form, private_texts=body.private_texts)
        audit.record(person, "report.ask", row, private_texts=row.private_texts)
    return row


@router.get("/{int:pk}/reports/{int:report}/file", openapi_extra=_FILES)
def reports_file(request: HttpRequest, pk: int, report: int) -> FileResponse:
    """A report that a worker made."""
    row = get_object_or_404(
        Report, pk=report, evaluation=found(request, pk), state=Report.State.READY
    )
    try:
        body = store.fetch(row.path).open("rb")
    except (OSError, StoreError, UserError):
        raise Http404 from None
    return FileResponse(body, content_type=reports.CONTENT_TYPES[row.form])


@router.get("/{int:pk}/report/{form}", openapi_extra=_FILES)
def reports_at_once(
    request: HttpRequest,
    pk: int,
    form: Literal["html", "json", "csv", "parquet"],
    wanted: Query[AtOnce],
) -> HttpResponse:
    """A form that is made while one waits."""
    evaluation = _graded(request, pk)
    try:
        body = reports.at_once(evaluation, form, private_texts=wanted.private_texts)
    except EvaluatorError as error:
        raise UserError(f"form: the report could not be made: {error}", "form") from None
    response = HttpResponse(body, content_type=reports.CONTENT_TYPES[form])
    # A page of model's words is a download, never shown under this origin.
    response["Content-Disposition"] = f'attachment; filename="evaluation-{pk}.{form}"'
    return response


@key_router.get("", response=KeyOut)
def signing_key(request: HttpRequest) -> dict[str, str]:
    """The public key that this installation's bundles are signed with."""
    pem, fingerprint = reports.public_key()
    return {"pem": pem.decode(), "fingerprint": fingerprint}

"""Refusals: every one has the same shape, whatever refused."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import (
    ObjectDoesNotExist,
    PermissionDenied,
    RequestDataTooBig,
    TooManyFieldsSent,
    TooManyFilesSent,
)
from django.http import Http404, HttpRequest, HttpResponse, UnreadablePostError
from django.http.multipartparser import MultiPartParserError
from pydantic import Field

from webapp.api.framework import HttpError, NinjaAPI, Schema, Throttled, ValidationError
from webapp.core.errors import UserError


class Refusal(Schema):
    """Why something was refused."""

    field: str | None = Field(description="What it is about; null: the request as a whole.")
    sentence: str = Field(description="One sentence for a person, with the remedy.")


# Status → when it is answered; the schema names them for every operation.
MEANINGS = {
    401: "No token, or one that is unknown, expired or revoked; or a session without its CSRF "
    "token.",
    403: "The token's scope or its owner's role does not allow it.",
    404: "There is no such thing, or none that the owner of the token may see.",
    409: "A piece of a file does not begin where the file ends: ask where, and send the rest.",
    411: "The body's length is not told.",
    413: "The body is larger than is taken.",
    422: "A field cannot be followed; nothing was done.",
    429: "Too many requests; Retry-After says how many seconds to wait.",
}


class UnauthenticatedError(Exception):
    """Nobody is known to ask."""


class ForbiddenError(Exception):
    """Who asks may not; the sentence says what is missing."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


def refusal(status: int, sentence: str, field: str | None = None) -> HttpResponse:
    """The answer of a refusal."""
    body = Refusal(field=field, sentence=sentence).model_dump_json()
    response = HttpResponse(body, status=status, content_type="application/json; charset=utf-8")
    if status == 401:
        response["WWW-Authenticate"] = 'Bearer realm="retort"'
    return response


def answer_refusals(api: NinjaAPI) -> None:
    """Have the API answer each exception of ours, and of the framework's, in that shape."""

    def user_error(request: HttpRequest, error: UserError) -> HttpResponse:
        return refusal(422, error.sentence, error.field)

    def nothing(request: HttpRequest, error: Exception) -> HttpResponse:
        return refusal(404, "There is no such thing here, or none that you may see.")

    def denied(request: HttpRequest, error: Exception) -> HttpResponse:
        return refusal(403, "Your role does not allow this; ask an admin of the project.")

    def forbidden(request: HttpRequest, error: ForbiddenError) -> HttpResponse:
        return refusal(403, error.sentence)

    def unauthenticated(request: HttpRequest, error: Exception) -> HttpResponse:
        return refusal(401, str(error) or "Send a live token: Authorization: Bearer retort_….")

    def invalid(request: HttpRequest, error: ValidationError) -> HttpResponse:
        first = error.errors[0]
        field = _field(first)
        return refusal(422, f"{field}: {_told(first)}.", field)

    def http(request: HttpRequest, error: HttpError) -> HttpResponse:
        if isinstance(error.__cause__, UserError):  # of a body that could not be read
            return user_error(request, error.__cause__)
        if error.status_code == 400:  # a body that is no JSON
            return refusal(422, "body: is no JSON; send an object.", "body")
        return refusal(error.status_code, str(error))

    def too_big(request: HttpRequest, error: Exception) -> HttpResponse:
        return refusal(413, "body: is larger than is taken here.", "body")

    def too_many(request: HttpRequest, error: Exception) -> HttpResponse:
        return refusal(413, "body: has more fields or files than are taken here.", "body")

    def no_form(request: HttpRequest, error: Exception) -> HttpResponse:
        return refusal(422, "body: is no form; send multipart/form-data.", "body")

    def throttled(request: HttpRequest, error: Throttled) -> HttpResponse:
        return refusal(429, "Too many requests; wait a little.")

    def broken(request: HttpRequest, error: Exception) -> HttpResponse:
        return refusal(422, "body: the connection broke before all of it came.", "body")

    handlers: dict[type[Exception], Any] = {
        UserError: user_error, Http404: nothing, ObjectDoesNotExist: nothing,
        PermissionDenied: denied, ForbiddenError: forbidden,
        UnauthenticatedError: unauthenticated, ValidationError: invalid, HttpError: http,
        Throttled: throttled, RequestDataTooBig: too_big, UnreadablePostError: broken,
        TooManyFilesSent: too_many, TooManyFieldsSent: too_many, MultiPartParserError: no_form,
    }  # fmt: skip
    for kind, handler in handlers.items():
        api.add_exception_handler(kind, handler)


def _field(error: dict[str, Any]) -> str:
    """Where it is, without the place in the request: ``limit``, ``recipe.name``."""
    parts = [str(each) for each in error["loc"][1:]]
    if error["loc"][0] == "body" and parts[:1] == ["body"]:  # what our handlers call it
        del parts[0]
    return ".".join(parts) or str(error["loc"][0])


def _told(error: dict[str, Any]) -> str:
    sentence: str = error["msg"].removeprefix("Value error, ").rstrip(".")
    return sentence[:1].lower() + sentence[1:]

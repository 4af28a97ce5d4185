"""One's own tokens."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from django.db import transaction
from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from pydantic import Field

from webapp.api import tokens
from webapp.api.auth import WRITE, token_of
from webapp.api.errors import ForbiddenError
from webapp.api.framework import Query, Router, Schema
from webapp.api.models import ApiToken, Scope
from webapp.api.paging import Page, Paged, page
from webapp.api.schemas import In, Key, Name
from webapp.core import audit
from webapp.core.errors import UserError
from webapp.core.users import signed_in

router = Router(tags=["tokens"])


class TokenOut(Schema):
    """A token without its secret, which nobody can read again."""

    id: int
    name: str
    prefix: str
    scope: Scope
    project: str | None
    state: str = Field(description="live, expired or revoked")
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None

    @staticmethod
    def resolve_project(row: ApiToken) -> str | None:
        """Its name."""
        return None if row.project is None else row.project.name


class NewToken(TokenOut):
    """A token with its secret, this once."""

    secret: str


class TokenIn(In):
    """What a new token is for."""

    name: Name
    scope: Scope = Scope.READ
    days: Annotated[int, Field(ge=1, le=tokens.MOST_DAYS)] = tokens.DAYS
    project: Key | None = None


@router.get("", response=Page[TokenOut])
def tokens_list(request: HttpRequest, wanted: Query[Paged]) -> dict[str, Any]:
    """One's own tokens, also those that are over."""
    return page(tokens.of(signed_in(request)), wanted)


@router.post("", response={201: NewToken}, auth=WRITE)
def tokens_make(request: HttpRequest, body: TokenIn) -> Any:
    """Make a token, which may do no more than the one that asks, and lives no longer.

    A session makes none here: the page of tokens asks for the password.
    """
    person, asking = signed_in(request), token_of(request)
    if asking is None:
        raise ForbiddenError("A session makes no token; make one on the page of API tokens.")
    project = None
    if body.project is not None:
        project = tokens.may_be_limited_to(person).filter(pk=body.project).first()
        if project is None:
            raise UserError("project: you are no member of such a one; choose another.", "project")
    with transaction.atomic():
        token, secret = tokens.make(
            person, name=body.name, scope=body.scope, days=body.days, project=project,
            within=asking,
        )  # fmt: skip
        audit.record(person, "token.create", token, project=project, scope=token.scope)
    token.secret = secret  # type: ignore[attr-defined]
    return token


@router.delete("/{int:pk}", response={204: None}, auth=WRITE)
def tokens_revoke(request: HttpRequest, pk: int) -> Any:
    """Have a token open nothing any more."""
    person = signed_in(request)
    token = get_object_or_404(ApiToken, pk=pk, owner=person)
    with transaction.atomic():
        tokens.revoke(token)
        audit.record(person, "token.revoke", token)

"""Making, finding and revoking tokens. A secret is shown once and kept as its digest only.

A secret has 256 bits of chance, so that a plain SHA-256 keeps it: there is nothing to guess, and no
salt to make guessing dearer.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from datetime import datetime, timedelta

from django.db.models import QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from webapp.api.models import AT_LEAST, ApiToken, Scope
from webapp.core.errors import UserError
from webapp.core.models import User
from webapp.core.text import storable
from webapp.projects.models import Membership, Project

START = "retort_"
DAYS = 90
MOST_DAYS = 366
MOST_LIVE = 50  # of a person
_SECRET_BYTES = 32
_SHOWN = len(START) + 6
_USED_AGAIN = timedelta(minutes=1)
_SECRET = re.compile(rf"{START}[A-Za-z0-9_-]{{43}}")


def make(
    owner: User,
    *,
    name: str,
    scope: str = Scope.READ,
    days: int = DAYS,
    project: Project | None = None,
    within: ApiToken | None = None,
) -> tuple[ApiToken, str]:
    """A new token and its secret, which nobody can read again.

    ``within`` is the token that asks for it: the new one may do no more, and lives no longer.
    Raises UserError naming the field.
    """
    name = storable(name.strip())
    if not name or len(name) > 100 or not name.isprintable():
        raise UserError("name: say in at most 100 characters where it is used.", "name")
    if scope not in Scope.values:
        raise UserError(f"scope: choose one of {', '.join(Scope.values)}.", "scope")
    if not 1 <= days <= MOST_DAYS:
        raise UserError(f"days: choose 1 to {MOST_DAYS}.", "days")
    if project is not None and not may_be_limited_to(owner).filter(pk=project.pk).exists():
        raise UserError("project: that is none of yours; choose another.", "project")
    expires_at = timezone.now() + timedelta(days=days)
    if within is not None:
        project = project or within.project
        _check_within(within, Scope(scope), project)
        expires_at = min(expires_at, within.expires_at)
    if live(owner).count() >= MOST_LIVE:
        raise UserError(f"name: you have {MOST_LIVE} tokens that live; revoke some first.", "name")
    secret = START + secrets.token_urlsafe(_SECRET_BYTES)
    token = ApiToken.objects.create(
        owner=owner, name=name, prefix=secret[:_SHOWN], digest=_digest(secret), scope=scope,
        project=project, expires_at=expires_at,
    )  # fmt: skip
    return token, secret


def _check_within(within: ApiToken, scope: Scope, project: Project | None) -> None:
    if Scope(within.scope) not in AT_LEAST[scope]:
        raise UserError(
            f"scope: this token has {within.scope} itself and makes none that may do more.", "scope"
        )
    if within.project_id is not None and (project is None or project.pk != within.project_id):
        raise UserError("project: this token makes only tokens of its own project.", "project")


def live(owner: User) -> QuerySet[ApiToken]:
    """The person's tokens that open something."""
    return ApiToken.objects.filter(owner=owner, revoked_at=None, expires_at__gt=Now())


def of(owner: User) -> QuerySet[ApiToken]:
    """All of the person's tokens, the newest first."""
    return ApiToken.objects.filter(owner=owner).select_related("project").order_by("-pk")


def find(secret: str) -> ApiToken | None:
    """The token of this secret; None where it is unknown, over, revoked, or its owner inactive."""
    if not _SECRET.fullmatch(secret):
        return None
    return (
        ApiToken.objects.filter(
            digest=_digest(secret), revoked_at=None, expires_at__gt=Now(), owner__is_active=True
        )
        .select_related("owner")
        .first()
    )


def note_use(token: ApiToken, now: datetime | None = None) -> None:
    """Write down that it was used, once a minute at most."""
    now = now or timezone.now()
    if token.last_used_at is None or now - token.last_used_at >= _USED_AGAIN:
        ApiToken.objects.filter(pk=token.pk).update(last_used_at=now)


def revoke(token: ApiToken) -> None:
    """It opens nothing any more; its row stays, to be named."""
    ApiToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=Now())


def may_be_limited_to(owner: User) -> QuerySet[Project]:
    """Projects that a token of the person's can be limited to: those they are a member of.

    Limited, it acts by its owner's role there, an administrator's powers aside.
    """
    return Project.objects.filter(pk__in=Membership.objects.filter(user=owner).values("project"))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()

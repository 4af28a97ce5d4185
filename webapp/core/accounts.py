"""What becomes of accounts: mail address, password, whether somebody may sign in at all."""

from __future__ import annotations

import secrets

from django.conf import settings
from django.contrib.auth.tokens import default_token_generator
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models.functions import Now
from django.urls import reverse
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode

from webapp.core import audit, sessions, throttling
from webapp.core.errors import UserError
from webapp.core.models import User

_PASSWORD_BYTES = 12  # of the first administrator


def first_administrator() -> tuple[User, str] | None:
    """Where nobody has an account: an administrator and the password, to be shown this once."""
    if User.objects.exists():
        return None
    password = secrets.token_urlsafe(_PASSWORD_BYTES)
    return User.objects.create_superuser("admin", password=password), password


def reset_link(user: User) -> str:
    """A link by which the person sets a new password, once, within PASSWORD_RESET_TIMEOUT."""
    uid = urlsafe_base64_encode(force_bytes(user.pk))
    path = reverse("core:reset-confirm", args=[uid, default_token_generator.make_token(user)])
    return settings.RETORT_URL.rstrip("/") + path


def password_changed(user: User, action: str, *, but: str | None = None) -> None:
    """End the person's other sessions, and write it down. Their API tokens stay."""
    with transaction.atomic():
        ended = sessions.end_all(user, but=but)
        audit.record(user, action, user, sessions_ended=ended)


def change_email(user: User, email: str) -> None:
    """Where mails that reset the password go."""
    with transaction.atomic():
        user.email = email
        user.save(update_fields=["email"])
        audit.record(user, "account.email", user)


def deactivate(actor: User, user: User) -> None:
    """Let nobody sign in with the account: its sessions and API tokens end at once.

    Raises PermissionDenied, and UserError for oneself: somebody else can still let one in again.
    """
    _require_administrator(actor)
    if user.pk == actor.pk:
        raise UserError("account: this is your own; have another administrator do it.")
    with transaction.atomic():
        user.is_active = False
        user.save(update_fields=["is_active"])
        ended = sessions.end_all(user)
        revoked = user.api_tokens.filter(revoked_at=None).update(revoked_at=Now())
        audit.record(actor, "account.deactivate", user, sessions_ended=ended, revoked=revoked)


def activate(actor: User, user: User) -> None:
    """Let the person sign in again. Raises PermissionDenied."""
    _require_administrator(actor)
    with transaction.atomic():
        user.is_active = True
        user.save(update_fields=["is_active"])
        audit.record(actor, "account.activate", user)


def make_reset_link(actor: User, user: User) -> str:
    """A link that an administrator hands over. Raises PermissionDenied and UserError."""
    _require_administrator(actor)
    if not user.is_active:
        raise UserError("account: it is deactivated; activate it first.")
    audit.record(actor, "account.reset_link", user)
    return reset_link(user)


def tidy() -> None:
    """Take away what is long over: audit entries, sessions, tries."""
    audit.forget_old()
    sessions.forget_old()
    throttling.forget_old()


def _require_administrator(actor: User) -> None:
    if not actor.is_staff:
        raise PermissionDenied

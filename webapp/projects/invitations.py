"""Inviting people into a project by a link that works once.

Of the link's token only the SHA-256 is kept. A link opens for a week, until it is used or revoked,
and as long as whoever sent it is an admin of the project. Whoever holds it and is signed in lets
their account join, whatever its mail address; others make an account, which joins this project
only.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from datetime import timedelta

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.core.mail import EmailMessage
from django.db import transaction
from django.db.models import QuerySet
from django.urls import reverse
from django.utils import timezone

from webapp.core import audit, mail
from webapp.core.errors import UserError
from webapp.core.models import User
from webapp.projects import services
from webapp.projects.access import has_role
from webapp.projects.models import Invitation, Project, Role

DAYS = 7
MOST_OPEN = 200  # of a project
_TOKEN_BYTES = 32
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")


def invite(actor: User, project: Project, email: str, role: Role) -> tuple[Invitation, str]:
    """A new invitation, and its link where no mail carries it (then it is shown this once).

    An earlier one to the same address ends. Raises PermissionDenied and UserError.
    """
    _require_admin(actor, project)
    email, token = email.strip().lower(), secrets.token_urlsafe(_TOKEN_BYTES)
    with transaction.atomic():
        Project.objects.select_for_update().get(pk=project.pk)
        open_ones(project).filter(email=email).update(revoked_at=timezone.now())
        if open_ones(project).count() >= MOST_OPEN:
            raise UserError(f"email: {MOST_OPEN} invitations are open; revoke some first.", "email")
        invitation = Invitation.objects.create(
            project=project, email=email, role=role, digest=_digest(token), invited_by=actor,
            expires_at=timezone.now() + timedelta(days=DAYS),
        )  # fmt: skip
        audit.record(actor, "invitation.make", invitation, role=role)
    link = settings.RETORT_URL.rstrip("/") + reverse("projects:invitation-link", args=[token])
    is_sent = settings.EMAIL_CONFIGURED and mail.send(_message(invitation, link))
    return invitation, "" if is_sent else link


def revoke(actor: User, invitation: Invitation) -> None:
    """Its link opens nothing any more. Raises PermissionDenied."""
    _require_admin(actor, invitation.project)
    with transaction.atomic():
        if open_ones(invitation.project).filter(pk=invitation.pk).update(revoked_at=timezone.now()):
            audit.record(actor, "invitation.revoke", invitation)


def open_ones(project: Project) -> QuerySet[Invitation]:
    """The project's invitations that nobody used or revoked and that have not run out."""
    return Invitation.objects.filter(
        project=project, accepted_at=None, revoked_at=None, expires_at__gt=timezone.now()
    )


def is_token(text: str) -> bool:
    """Whether it looks like the token of a link."""
    return _TOKEN.fullmatch(text) is not None


def find(token: str, *, lock: bool = False) -> Invitation | None:
    """The open invitation of this token; ``lock`` it, in a transaction, to use it up."""
    if not is_token(token):
        return None
    rows = Invitation.objects.select_related("project", "invited_by").filter(digest=_digest(token))
    found = (rows.select_for_update(of=("self",)) if lock else rows).first()
    if found is None or found.accepted_at or found.revoked_at:
        return None
    if found.expires_at <= timezone.now() or found.invited_by is None:
        return None
    sender = found.invited_by
    if not sender.is_active or not has_role(sender, found.project_id, Role.ADMIN):
        return None
    return found


def accept(token: str, user: User) -> Project | None:
    """Let the account join; None where the link opens nothing (any more)."""
    with transaction.atomic():
        invitation = find(token, lock=True)
        if invitation is None:
            return None
        services.join(invitation.project, user, Role(invitation.role))
        invitation.accepted_at, invitation.accepted_by = timezone.now(), user
        invitation.save(update_fields=["accepted_at", "accepted_by"])
        audit.record(user, "invitation.accept", invitation, role=invitation.role)
    return invitation.project


def forget_old() -> int:
    """Take away what was used, revoked or ran out long ago; the audit log tells of it."""
    before = timezone.now() - timedelta(days=10 * DAYS)
    return Invitation.objects.filter(expires_at__lt=before).delete()[0]


def _require_admin(actor: User, project: Project) -> None:
    if not has_role(actor, project.pk, Role.ADMIN):
        raise PermissionDenied


def _message(invitation: Invitation, link: str) -> EmailMessage:
    sender = invitation.invited_by.get_username() if invitation.invited_by else ""
    return mail.message(
        f"an invitation to {invitation.project.name}",
        [
            f"{mail.one_line(sender)} invites you to the project "
            f"“{mail.one_line(invitation.project.name)}” as {invitation.role}.",
            "",
            f"To join, open this link within {DAYS} days; it works once:",
            link,
            "",
            "If you do not know what this is about, ignore it.",
        ],
        invitation.email,
    )


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()

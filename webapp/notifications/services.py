"""Telling people how their runs ended.

Rows first: what is to be told is found in the database (``note_ends``), so an end that came about
in any process, or while none of ours was up, is told of. A row is claimed by setting its next try
ahead of time: who dies while delivering has it tried again. So a message comes at least once, with
the same id each time.
"""

from __future__ import annotations

import json
import smtplib
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.mail import EmailMessage, get_connection
from django.db import connection, transaction
from django.db.models.functions import Now
from django.urls import reverse
from django.utils import timezone

from webapp.core import sealing, throttling
from webapp.core.errors import UserError
from webapp.core.models import User
from webapp.notifications import webhook
from webapp.notifications.models import Channel, Notification, Preference
from webapp.notifications.webhook import DeliveryError
from webapp.projects.access import has_role
from webapp.projects.models import Role
from webapp.runs.models import FINAL_STATES, Run, State

# Waits before the second try and each one after it; after the last the message is given up.
BACKOFF = tuple(timedelta(seconds=s) for s in (30, 120, 600, 3600, 6 * 3600))
LOOK_BACK = timedelta(days=2)  # an end that nobody noted for so long is history


def preference_of(user: User) -> Preference:
    """The person's settings, or the defaults (unsaved)."""
    found = Preference.objects.filter(user=user).first()
    return found or Preference(user=user, email=user.email, since=timezone.now())


def set_preference(
    user: User,
    *,
    email: str = "",
    webhook_url: str = "",
    new_secret: bool = False,
    on_finished: bool,
    on_failed: bool,
    on_cancelled: bool,
) -> str:
    """Save; returns the webhook's secret where a new one was made (it is not shown again), or "".

    Raises UserError naming the field.
    """
    url = _checked(webhook_url)
    if email and not settings.EMAIL_CONFIGURED:
        raise UserError("email: this installation has no mail server (EMAIL_URL).", "email")
    secret = ""
    with transaction.atomic():
        User.objects.select_for_update().get(pk=user.pk)
        kept = preference_of(user)
        if url and (new_secret or not kept.sealed_secret):
            secret = webhook.new_secret()
            kept.sealed_secret = sealing.seal(secret)
        elif not url:
            kept.sealed_secret = ""
        if not (kept.email or kept.webhook_url):
            kept.since = timezone.now()
        kept.email, kept.webhook_url = email, url
        kept.on_finished, kept.on_failed, kept.on_cancelled = on_finished, on_failed, on_cancelled
        kept.save()
    return secret


def _checked(url: str) -> str:
    """``url`` as it is asked; its path and query may be what lets one in, so it is shown to nobody
    but its owner.
    """
    url = url.strip()
    if not url:
        return ""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise UserError(f"webhook_url: it is no address ({error}).", "webhook_url") from None
    if parts.scheme not in ("http", "https") or not host:
        raise UserError("webhook_url: give an address such as https://host/path.", "webhook_url")
    if "@" in parts.netloc or parts.fragment:
        raise UserError("webhook_url: leave out user, password and fragment.", "webhook_url")
    if len(url) > 500 or not url.isprintable() or " " in url:
        raise UserError("webhook_url: give an address of at most 500 characters.", "webhook_url")
    return url


def note_ends() -> int:
    """Write a row for each end of a run that its owner wants to hear of; returns how many.

    A check's end is none of them: it takes seconds, before the eyes of who asked. Two workers who
    do so at once write each row once.
    """
    since = timezone.now() - LOOK_BACK
    ended = (
        Run.objects.filter(
            state__in=FINAL_STATES,
            finished_at__gt=since,
            owner__notification_preference__isnull=False,
        )
        .exclude(kind=Run.Kind.CHECK)
        .select_related("owner__notification_preference")
    )
    noted = set(
        Notification.objects.filter(ended_at__gt=since).values_list("run_id", "ended_at", "channel")
    )
    rows = []
    for run in ended.defer("config"):
        wish = run.owner.notification_preference
        if run.finished_at is None or run.finished_at < wish.since or not wish.wants(run.state):
            continue
        for channel, place in ((Channel.EMAIL, wish.email), (Channel.WEBHOOK, wish.webhook_url)):
            if place and (run.pk, run.finished_at, channel.value) not in noted:
                rows.append(
                    Notification(
                        user=run.owner, run=run, state=run.state, ended_at=run.finished_at,
                        channel=channel, next_at=timezone.now(),
                    )
                )  # fmt: skip
    Notification.objects.bulk_create(rows, ignore_conflicts=True)
    return len(rows)


def deliver_due() -> int:
    """Try what is due, one after another; returns how many were delivered."""
    delivered = 0
    while (found := _claim()) is not None:
        try:
            _deliver(found)
        except DeliveryError as error:
            _note_failure(found, error)
        else:
            Notification.objects.filter(pk=found.pk).update(
                delivered_at=Now(), next_at=None, error=""
            )
            delivered += 1
    return delivered


_CLAIM = """
UPDATE notifications_notification SET attempts = attempts + 1,
       next_at = clock_timestamp() + make_interval(secs => (%s::float[])[least(attempts + 1, %s)])
WHERE id = (SELECT id FROM notifications_notification WHERE next_at <= clock_timestamp()
            ORDER BY next_at LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING id
"""


def _claim() -> Notification | None:
    waits = [wait.total_seconds() for wait in BACKOFF]
    with connection.cursor() as cursor:
        cursor.execute(_CLAIM, [waits, len(waits)])
        found = cursor.fetchone()
    if found is None:
        return None
    return (
        Notification.objects.select_related("run", "user__notification_preference")
        .defer("run__config")
        .get(pk=found[0])
    )


def _note_failure(notification: Notification, error: DeliveryError) -> None:
    changes: dict[str, Any] = {"error": str(error)[:300]}
    if error.final or notification.attempts > len(BACKOFF):
        changes["next_at"] = None
    Notification.objects.filter(pk=notification.pk).update(**changes)


def _deliver(notification: Notification) -> None:
    wish = getattr(notification.user, "notification_preference", None)
    place = wish and (wish.email if notification.channel == Channel.EMAIL else wish.webhook_url)
    if not wish or not place:
        raise DeliveryError("it is not wanted any more", final=True)
    if not has_role(notification.user, notification.run.project_id, Role.VIEWER):
        raise DeliveryError("its reader is not in the run's project any more", final=True)
    if notification.channel == Channel.EMAIL:
        _mail(wish.email, notification.run, notification.state)
    else:
        _post(wish, notification.run, notification.state, f"notification-{notification.pk}")


def test_delivery(user: User, channel: str) -> None:
    """Send a message that says it is a test. Raises UserError with what went wrong.

    Mails may be sent to anybody's address, so that there are few of them.
    """
    wish = preference_of(user)
    mails = throttling.of_account("test-mail", user.get_username(), "")
    if channel == Channel.EMAIL and wish.email and (wait := throttling.begin([mails])):
        raise UserError(f"{channel}: {throttling.in_words(wait)}")
    run = Run(pk=0, name="A test of notifications", kind=Run.Kind.EVALUATION, owner=user)
    run.finished_at = timezone.now()
    try:
        if channel == Channel.EMAIL and wish.email:
            _mail(wish.email, run, State.FINISHED)
        elif channel == Channel.WEBHOOK and wish.webhook_url:
            _post(wish, run, State.FINISHED, f"test-{timezone.now().timestamp():.0f}")
        else:
            raise UserError(f"{channel}: none is set; save one first.")
    except DeliveryError as error:
        raise UserError(f"{channel}: it was not delivered: {error}.") from None


def _address(run: Run) -> str:
    path = run.get_absolute_url() if run.pk else reverse("notifications:settings")
    return settings.RETORT_URL.rstrip("/") + path


def _one_line(text: str) -> str:
    """A name without what would end a header's line or hide in it."""
    return "".join(c if c.isprintable() else " " for c in text)[:150]


def _mail(address: str, run: Run, state: str) -> None:
    lines = [f"{run.get_kind_display().capitalize()} “{_one_line(run.name)}” {state}."]
    if run.error:
        lines.append(f"Why: {run.error[:1000]}")
    settings_page = settings.RETORT_URL.rstrip("/") + reverse("notifications:settings")
    lines += ["", _address(run), "", f"Change what you are told: {settings_page}"]
    message = EmailMessage(
        subject=f"[Retort] {_one_line(run.name)}: {state}",
        body="\n".join(lines),
        to=[address],
        connection=get_connection(timeout=webhook.SECONDS),
        headers={"Auto-Submitted": "auto-generated"},
    )
    try:
        message.send()
    except smtplib.SMTPRecipientsRefused:
        raise DeliveryError("the mail server refused the address", final=True) from None
    except (smtplib.SMTPException, OSError) as error:
        raise DeliveryError(f"the mail server did not take it ({type(error).__name__})") from None


def _post(wish: Preference, run: Run, state: str, message_id: str) -> None:
    try:
        secret = sealing.unseal(wish.sealed_secret)
    except sealing.UnreadableError:
        raise DeliveryError(
            "its secret cannot be read: save the webhook again", final=True
        ) from None
    ended = run.finished_at or timezone.now()
    body = {
        "type": f"run.{state}" if run.pk else "test",
        "timestamp": ended.isoformat(),
        "data": {
            "run": run.pk, "name": run.name, "kind": run.kind, "state": state,
            "error": run.error, "url": _address(run),
        },
    }  # fmt: skip
    webhook.post(
        wish.webhook_url,
        json.dumps(body, ensure_ascii=False).encode(),
        secret=secret,
        message_id=message_id,
        timestamp=int(timezone.now().timestamp()),
        public_only=not settings.RETORT_ALLOW_PRIVATE_ENDPOINTS,
    )


def reseal_all() -> int:
    """Write every webhook's secret anew under the newest key. Raises UserError."""
    with transaction.atomic():
        found = Preference.objects.select_for_update().exclude(sealed_secret="").order_by("pk")
        for wish in found:
            try:
                sealed = sealing.reseal(wish.sealed_secret)
            except sealing.UnreadableError:
                raise UserError(
                    f"the webhook's secret of {wish.user} cannot be read with this installation's "
                    "keys; add the older key, or have it saved again."
                ) from None
            Preference.objects.filter(pk=wish.pk).update(sealed_secret=sealed)
        return len(found)

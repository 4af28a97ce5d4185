"""People are told how their runs ended: each end once noted, tried until taken, signed, bounded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from email import message_from_bytes
from email.policy import default as email_policy
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from django.core.management import call_command
from django.test import Client
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from tests.webapp.receiver import Receiver
from tests.webapp.samples import make_run
from webapp.core import sealing
from webapp.core.errors import UserError
from webapp.notifications import services, webhook
from webapp.notifications.models import Notification, Preference
from webapp.notifications.webhook import DeliveryError
from webapp.runs.models import Run, State

pytestmark = pytest.mark.django_db


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    settings.RETORT_ALLOW_PRIVATE_ENDPOINTS = True
    with Receiver() as found:
        yield found


class Mailbox:
    """What an SMTP server on the loopback was given; refuses recipients at ``refused``."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: Any, session: Any, envelope: Any, address: str, options: Any
    ) -> str:
        if address.startswith("nobody@"):
            return "550 there is nobody of that name"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        self.messages.append(message_from_bytes(envelope.content, policy=email_policy))
        return "250 OK"


class AnyPort(Controller):
    """On a port that the system chose; aiosmtpd would knock at port 0 itself."""

    def _trigger_server(self) -> None:
        assert self.server is not None
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


@pytest.fixture
def mailbox(settings: Any) -> Iterator[Mailbox]:
    box = Mailbox()
    controller = AnyPort(box, hostname="127.0.0.1", port=0)
    controller.start()
    settings.EMAIL_CONFIGURED = True
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST = "127.0.0.1"
    settings.EMAIL_PORT = controller.port
    yield box
    controller.stop()


def wishes(user: Any, **changes: Any) -> str:
    wanted = {"on_finished": True, "on_failed": True, "on_cancelled": False} | changes
    return services.set_preference(user, **wanted)


def ended(user: Any, state: str = State.FINISHED, name: str = "a run", **more: Any) -> Run:
    run = make_run(user, name, Run.Kind.EVALUATION, state)
    Run.objects.filter(pk=run.pk).update(finished_at=timezone.now(), **more)
    run.refresh_from_db()
    return run


def due_again() -> None:
    """As if the wait before the next try were over."""
    Notification.objects.filter(next_at__isnull=False).update(next_at=timezone.now())


# --- what is told of


def test_every_wanted_end_is_noted_once_however_often_one_looks(
    user: Any, receiver: Receiver
) -> None:
    before = ended(user)
    wishes(user, webhook_url=receiver.url, on_finished=True, on_failed=True, on_cancelled=False)
    finished, failed = ended(user), ended(user, State.FAILED)
    ended(user, State.CANCELLED)
    make_run(user, "under way", Run.Kind.EVALUATION, State.RUNNING)
    for _ in range(3):
        services.note_ends()
    noted = Notification.objects.values_list("run", "state")
    assert set(noted) == {(finished.pk, "finished"), (failed.pk, "failed")}
    assert before.pk not in {run for run, _ in noted}
    # A retried run ends again, and is told of again.
    Run.objects.filter(pk=failed.pk).update(state=State.FINISHED, finished_at=timezone.now())
    services.note_ends()
    assert Notification.objects.filter(run=failed).count() == 2


def test_looking_for_ends_asks_a_fixed_number_of_questions(
    user: Any, receiver: Receiver, django_assert_max_num_queries: Any
) -> None:
    wishes(user, webhook_url=receiver.url)
    for _ in range(30):
        ended(user)
    with django_assert_max_num_queries(5):
        assert services.note_ends() == 30


# --- webhooks


def test_a_webhook_gets_a_message_that_an_independent_library_verifies(
    user: Any, receiver: Receiver
) -> None:
    secret = wishes(user, webhook_url=receiver.url)
    run = ended(user, State.FAILED, error="the disk is full\nreally")
    services.note_ends()
    assert services.deliver_due() == 1
    assert services.deliver_due() == 0
    ((headers, body),) = receiver.seen
    message = Webhook(secret).verify(body, headers)
    assert message["type"] == "run.failed"
    assert message["data"]["run"] == run.pk
    assert message["data"]["error"] == run.error
    assert message["data"]["url"].endswith(run.get_absolute_url())
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body.replace(b"failed", b"finished"), headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(webhook.new_secret()).verify(body, headers)
    assert Notification.objects.get().delivered_at is not None


def test_a_message_that_nobody_took_is_tried_later_with_the_same_id_and_at_last_given_up(
    user: Any, receiver: Receiver
) -> None:
    wishes(user, webhook_url=receiver.url)
    ended(user)
    services.note_ends()
    receiver.status = 503
    tries = len(services.BACKOFF) + 1
    for attempt in range(1, tries + 1):
        assert services.deliver_due() == 0
        row = Notification.objects.get()
        assert row.attempts == attempt == len(receiver.seen)
        assert "503" in row.error
        if attempt < tries:
            assert row.next_at is not None
            wait = row.next_at - timezone.now()
            expected = services.BACKOFF[attempt - 1]
            assert expected - timedelta(seconds=20) < wait <= expected
            due_again()
    assert row.next_at is None
    assert row.delivered_at is None
    assert len({headers["webhook-id"] for headers, _ in receiver.seen}) == 1


def test_one_that_died_while_delivering_is_succeeded_by_another(
    user: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    wishes(user, webhook_url=receiver.url)
    ended(user)
    services.note_ends()

    class DiedError(BaseException):
        pass

    def die(*_: Any, **__: Any) -> None:
        raise DiedError

    with monkeypatch.context() as patch:
        patch.setattr(webhook, "post", die)
        with pytest.raises(DiedError):
            services.deliver_due()
    assert services.deliver_due() == 0, "it was taken twice at a time"
    due_again()
    assert services.deliver_due() == 1
    assert len(receiver.seen) == 1


def test_redirects_lead_nowhere(user: Any, receiver: Receiver) -> None:
    with Receiver() as inner:
        receiver.status, receiver.headers = 307, {"Location": inner.url}
        wishes(user, webhook_url=receiver.url)
        ended(user)
        services.note_ends()
        assert services.deliver_due() == 0
        assert inner.seen == []
    assert "redirects are not followed" in Notification.objects.get().error


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"]
)
def test_private_addresses_are_refused_where_the_connection_is_made(
    host: str, receiver: Receiver
) -> None:
    with pytest.raises(DeliveryError, match="private network") as refusal:
        webhook.post(
            f"http://{host}:{receiver.port}/", b"{}", secret=webhook.new_secret(),
            message_id="m", timestamp=1, public_only=True,
        )  # fmt: skip
    assert refusal.value.final
    assert receiver.seen == []


def test_a_receiver_that_never_answers_holds_nobody_for_long(
    user: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "SECONDS", 0.3)
    receiver.hang = True
    wishes(user, webhook_url=receiver.url)
    ended(user)
    services.note_ends()
    assert services.deliver_due() == 0
    assert Notification.objects.get().error == "no answer within 0.3 s"


def test_what_is_gone_or_not_wanted_any_more_is_given_up_at_once(
    user: Any, receiver: Receiver
) -> None:
    wishes(user, webhook_url=receiver.url)
    ended(user)
    services.note_ends()
    receiver.status = 410
    services.deliver_due()
    assert Notification.objects.get().next_at is None
    ended(user)
    services.note_ends()
    wishes(user, webhook_url="")
    services.deliver_due()
    assert {row.next_at for row in Notification.objects.all()} == {None}
    assert len(receiver.seen) == 1


# --- mail


HOSTILE_NAMES = st.text(
    alphabet=st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=200
)


@pytest.mark.parametrize("name", ["r1 → tiny", "x\r\nBcc: eve@example.org\r\n\r\nbody", "é" * 300])
def test_a_mail_says_what_ended_and_a_name_cannot_add_a_header(
    user: Any, mailbox: Mailbox, name: str
) -> None:
    wishes(user, email="ada@example.org")
    run = ended(user, State.FAILED, name=name[:200], error="the disk is full")
    services.note_ends()
    assert services.deliver_due() == 1
    (message,) = mailbox.messages
    assert message["To"] == "ada@example.org"
    assert message["Bcc"] is None
    assert "failed" in message["Subject"]
    text = message.get_content()
    assert "the disk is full" in text
    assert run.get_absolute_url() in text


@given(HOSTILE_NAMES)
def test_no_name_has_more_than_one_line_in_a_header(name: str) -> None:
    line = services._one_line(name)
    assert line.isprintable()
    assert len(line.splitlines()) <= 1
    assert len(line) <= 150


def test_an_address_that_the_mail_server_refuses_is_given_up(user: Any, mailbox: Mailbox) -> None:
    wishes(user, email="nobody@example.org")
    ended(user)
    services.note_ends()
    assert services.deliver_due() == 0
    row = Notification.objects.get()
    assert row.next_at is None
    assert "refused the address" in row.error


def test_a_mail_server_that_is_down_is_asked_again(
    user: Any, mailbox: Mailbox, settings: Any
) -> None:
    wishes(user, email="ada@example.org")
    ended(user)
    services.note_ends()
    right, settings.EMAIL_PORT = settings.EMAIL_PORT, 1
    assert services.deliver_due() == 0
    settings.EMAIL_PORT = right
    due_again()
    assert services.deliver_due() == 1
    assert len(mailbox.messages) == 1


# --- settings


def test_the_secret_is_shown_once_and_kept_sealed(
    user: Any, page: Client, receiver: Receiver
) -> None:
    answer = page.post("/notifications/", {"webhook_url": receiver.url, "on_failed": "on"})
    kept = Preference.objects.get()
    secret = sealing.unseal(kept.sealed_secret)
    assert secret in answer.content.decode()
    assert secret not in kept.sealed_secret
    assert answer["Cache-Control"] == "no-store"
    again = page.get("/notifications/").content.decode()
    assert secret not in again
    page.post("/notifications/", {"webhook_url": receiver.url, "on_finished": "on"})
    kept.refresh_from_db()
    assert sealing.unseal(kept.sealed_secret) == secret
    assert (kept.on_finished, kept.on_failed, kept.on_cancelled) == (True, False, False)
    page.post("/notifications/", {"webhook_url": receiver.url, "new_secret": "on"})
    kept.refresh_from_db()
    assert sealing.unseal(kept.sealed_secret) != secret


@pytest.mark.parametrize(
    "url",
    ["ftp://host/", "host/path", "http://", "http://u:p@host/", "http://[::1", "http://a b"],
)
def test_a_wrong_address_is_refused_at_its_field(page: Client, url: str) -> None:
    answer = page.post("/notifications/", {"webhook_url": url})
    assert answer.status_code == 400
    assert "webhook_url" in answer.context["form"].errors
    assert not Preference.objects.exists()


def test_without_a_mail_server_mail_cannot_be_asked_for(user: Any, page: Client) -> None:
    assert "no mail server" in page.get("/notifications/").content.decode()
    with pytest.raises(UserError, match="EMAIL_URL"):
        wishes(user, email="ada@example.org")


def test_a_test_message_says_what_became_of_it(
    user: Any, page: Client, receiver: Receiver, mailbox: Mailbox
) -> None:
    wishes(user, webhook_url=receiver.url, email="ada@example.org")
    for channel in ("webhook", "email"):
        answer = page.post(f"/notifications/test/{channel}/", follow=True)
        assert f"The test was delivered by {channel}." in answer.content.decode()
    assert json.loads(receiver.seen[0][1])["type"] == "test"
    assert len(mailbox.messages) == 1
    receiver.status = 500
    answer = page.post("/notifications/test/webhook/", follow=True)
    assert "it was not delivered: it answered 500" in answer.content.decode()
    assert page.post("/notifications/test/pigeon/").status_code == 404
    assert not Notification.objects.exists()


def test_nobody_is_flooded_with_test_mails(user: Any, page: Client, mailbox: Mailbox) -> None:
    """The address is whatever somebody wrote there, and mails come in the installation's name."""
    for number in range(12):
        wishes(user, email=f"anybody-{number % 3}@example.org")
        answer = page.post("/notifications/test/email/", follow=True)
    assert len(mailbox.messages) == 5
    assert "Too many tries: wait" in answer.content.decode()


def test_somebody_elses_messages_are_not_listed(user: Any, admin: Any, receiver: Receiver) -> None:
    wishes(user, webhook_url=receiver.url)
    ended(user, name="of ada alone")
    services.note_ends()
    other = Client()
    other.force_login(admin)
    assert "of ada alone" not in other.get("/notifications/").content.decode()


def test_secrets_are_sealed_anew_with_the_endpoints_keys(
    user: Any, receiver: Receiver, settings: Any
) -> None:
    settings.RETORT_ENCRYPTION_KEYS = ["old"]
    secret = wishes(user, webhook_url=receiver.url)
    settings.RETORT_ENCRYPTION_KEYS = ["new", "old"]
    call_command("reseal")
    settings.RETORT_ENCRYPTION_KEYS = ["new"]
    assert sealing.unseal(Preference.objects.get().sealed_secret) == secret

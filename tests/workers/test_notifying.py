"""A real worker tells whoever wants to hear of it that a run ended."""

from __future__ import annotations

from typing import Any

from standardwebhooks.webhooks import Webhook

from tests.webapp.receiver import Receiver
from webapp.notifications import services
from webapp.notifications.models import Notification


def test_a_worker_tells_of_an_end(run: Any, user: Any, start_worker: Any, wait_until: Any) -> None:
    with Receiver() as receiver:
        secret = services.set_preference(
            user, webhook_url=receiver.url, on_finished=True, on_failed=True, on_cancelled=False
        )
        start_worker(child="well", RETORT_ALLOW_PRIVATE_ENDPOINTS="1")
        wait_until(lambda: Notification.objects.filter(delivered_at__isnull=False).exists())
        ((headers, body),) = receiver.seen
    message = Webhook(secret).verify(body, headers)
    run.refresh_from_db()
    assert message["data"]["state"] == run.state == "finished"
    assert message["data"]["run"] == run.pk

"""Sending a mail that somebody asked for on a page.

The mail server is asked in a thread of its own: a page that says the same whether an address is
known or not must also take the same time.
"""

from __future__ import annotations

import logging
import smtplib
import threading
from collections.abc import Sequence

from django.core.mail import EmailMessage, get_connection

from webapp.core import logs

SECONDS = 10.0  # that the mail server has for each step

logger = logging.getLogger(__name__)


def one_line(text: str) -> str:
    """A name without what would end a header's line or hide in it."""
    return "".join(c if c.isprintable() else " " for c in text)[:150]


def message(subject: str, lines: Sequence[str], address: str) -> EmailMessage:
    """A plain message that no out-of-office reply answers."""
    return EmailMessage(
        subject=f"[Retort] {one_line(subject)}",
        body="\n".join(lines),
        to=[address],
        connection=get_connection(timeout=SECONDS),
        headers={"Auto-Submitted": "auto-generated"},
    )


def send(message: EmailMessage) -> bool:
    """Whether the mail server took it."""
    try:
        message.send()
    except (smtplib.SMTPException, OSError) as error:
        logger.warning("the mail server did not take a message (%s)", type(error).__name__)
        return False
    return True


def send_later(messages: Sequence[EmailMessage]) -> threading.Thread:
    """Send them while the page is answered already."""

    def work() -> None:
        for each in messages:
            send(each)

    thread = threading.Thread(target=logs.carried(work), name="mail", daemon=True)
    thread.start()
    return thread

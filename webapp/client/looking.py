"""Looking again at what takes its time on the server."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from webapp.client import showing
from webapp.client.errors import ClientError

AWAY_SECONDS = 900.0
# No answer at all; too many requests; and what a proxy says for a server that is not there.
_AWAY = (None, 429, 502, 503, 504)

Answer = TypeVar("Answer")


def again(look: Callable[[], Answer], every: float) -> Answer:
    """What ``look`` finds after ``every`` seconds, or later where the server is away meanwhile.

    It may be upgraded, or a network be gone for some minutes: who waits for hours goes on waiting.
    Raises ClientError where it stays away, or refuses.
    """
    deadline, told = time.monotonic() + AWAY_SECONDS, False
    while True:
        time.sleep(every)
        try:
            return look()
        except ClientError as error:
            if error.status not in _AWAY or time.monotonic() >= deadline:
                raise
            if not told:
                showing.complain(f"{error.sentence} It is asked again.")
                told = True

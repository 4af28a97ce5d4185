"""Slowing down who guesses passwords: after some tries in vain, each further one has to wait.

Tries are counted in the database, by account and address together and by address alone; never by
account alone, so that nobody locks somebody else out from elsewhere. The wait doubles from half a
minute to a quarter of an hour. A try is counted before it is made, so that many at once are no way
around, and taken back when it was right.

django-axes was looked at and left: it has one limit for all of its counts, and waits that do not
grow; with one limit an office behind one address would lock itself out, or guessing stay cheap.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import connection, transaction
from django.db.models import F
from django.db.models.functions import Greatest

from webapp.core.models import Tries

FIRST_WAIT = timedelta(seconds=30)
LONGEST_WAIT = timedelta(minutes=15)
FORGOTTEN_AFTER = timedelta(days=1)
_IPV6_PREFIX = 64  # bits: what one customer of a provider has at least


@dataclass(frozen=True, slots=True)
class Count:
    """Tries that are counted together: of what, and so many before there is a wait."""

    of: tuple[str, ...]
    free: int

    @property
    def key(self) -> str:
        """Its row's key."""
        return hashlib.sha256("\0".join(self.of).encode("utf-8", "replace")).hexdigest()


def of_account(kind: str, account: str, address: str) -> Count:
    """Tries at one account from one address."""
    return Count((kind, "account", account.casefold(), _place(address)), free=5)


def of_address(kind: str, address: str) -> Count | None:
    """Tries from one address at whatever account; None where it is not known."""
    return Count((kind, "address", _place(address)), free=50) if address else None


def now() -> datetime:
    """The database's clock: web servers' clocks may differ."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        found = cursor.fetchone()
    assert found is not None
    moment: datetime = found[0]
    return moment


def begin(counts: Sequence[Count | None]) -> timedelta | None:
    """Count a try; None where it may be made, else how long to wait (nothing is counted then)."""
    found = sorted((each for each in counts if each is not None), key=lambda each: each.key)
    with transaction.atomic():
        rows = []
        for each in found:  # always in the same order: two at once never wait for each other
            Tries.objects.get_or_create(key=each.key, defaults={"last_at": now()})
            rows.append(Tries.objects.select_for_update().get(key=each.key))
        moment = now()  # with the rows held: no try is later than this one
        longest = timedelta(0)
        for row, each in zip(rows, found, strict=True):
            if moment - row.last_at > FORGOTTEN_AFTER:
                row.count = 0
            longest = max(longest, row.last_at + _wait(row.count, each.free) - moment)
        if longest > timedelta(0):
            return longest
        for row in rows:
            row.count, row.last_at = row.count + 1, moment
            row.save(update_fields=["count", "last_at"])
    return None


def succeeded(account: Count, address: Count | None) -> None:
    """The try was right: forget those at the account, take this one back from the address."""
    Tries.objects.filter(key=account.key).delete()
    if address is not None:
        Tries.objects.filter(key=address.key).update(count=Greatest(F("count") - 1, 0))


def forget_old() -> int:
    """Take away rows of what is forgotten; returns how many."""
    return Tries.objects.filter(last_at__lt=now() - FORGOTTEN_AFTER).delete()[0]


def in_words(wait: timedelta) -> str:
    """What to do, as a sentence."""
    seconds = int(wait.total_seconds()) + 1
    amount = f"{seconds} seconds" if seconds <= 90 else f"{-(-seconds // 60)} minutes"
    return f"Too many tries: wait {amount}, then try again."


def _wait(count: int, free: int) -> timedelta:
    """How long after the last of so many tries the next one may be made."""
    if count < free:
        return timedelta(0)
    doublings = min(count - free, 10)  # the longest wait is reached long before
    return min(FIRST_WAIT * (1 << doublings), LONGEST_WAIT)


def _place(address: str) -> str:
    """The address, or the network that one customer has."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if found.version == 4:
        return str(found)
    return str(ipaddress.ip_network((found, _IPV6_PREFIX), strict=False))

"""Secrets in the database: encrypted, under a key that is not in it.

Each of ``RETORT_ENCRYPTION_KEYS`` (the newest first; without them SECRET_KEY and its fallbacks)
gives a Fernet key (AES-128-CBC with HMAC-SHA256) through HKDF (RFC 5869). What an older one sealed
can be read until it is taken off the list; ``manage.py reseal`` writes everything anew under the
newest.
"""

from __future__ import annotations

import base64

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

_PURPOSE = b"retort/sealed/1"


class UnreadableError(Exception):
    """None of this installation's keys opens it."""


def seal(secret: str) -> str:
    """Encrypt under the newest key."""
    return _box().encrypt(secret.encode()).decode()


def unseal(sealed: str) -> str:
    """Decrypt. Raises UnreadableError where none of the keys made it, or it was changed."""
    try:
        return _box().decrypt(sealed.encode()).decode()
    except InvalidToken:
        raise UnreadableError from None


def reseal(sealed: str) -> str:
    """Encrypt anew under the newest key. Raises UnreadableError."""
    return seal(unseal(sealed))


def _box() -> MultiFernet:
    own = settings.RETORT_ENCRYPTION_KEYS
    return MultiFernet(
        [_fernet(key) for key in own or (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)]
    )


def _fernet(key: str) -> Fernet:
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=_PURPOSE).derive(key.encode())
    return Fernet(base64.urlsafe_b64encode(derived))

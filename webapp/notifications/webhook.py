"""One signed POST to an address that a person chose: bounded, not redirected, public only.

Signed as the Standard Webhooks specification (standardwebhooks.com, version 1) says: headers
``webhook-id``, ``webhook-timestamp`` and ``webhook-signature``; the signature is ``v1,`` and the
base64 of HMAC-SHA256 over ``id.timestamp.body``, under the secret's bytes (base64 after
``whsec_``). The receiver compares, refuses old timestamps, and drops an id it has seen.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets

import aiohttp

from evaluator.engines.addresses import NotPublicError, public_socket

SECONDS = 10.0
PREFIX = "whsec_"
_SECRET_BYTES = 32


class DeliveryError(Exception):
    """Nobody took the message; the sentence says why. ``final``: another try is of no use."""

    def __init__(self, sentence: str, *, final: bool = False) -> None:
        super().__init__(sentence)
        self.final = final


def new_secret() -> str:
    """A secret in the form that receivers' libraries take."""
    return PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The value of ``webhook-signature``; ``timestamp`` in seconds since 1970."""
    key = base64.b64decode(secret.removeprefix(PREFIX))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def post(
    url: str, body: bytes, *, secret: str, message_id: str, timestamp: int, public_only: bool
) -> None:
    """Deliver ``body`` (JSON); takes SECONDS at most, whatever the other side does.

    Raises DeliveryError for anything but an answer of 2xx. The answer's body is not read.
    """
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "retort",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(secret, message_id, timestamp, body),
    }
    # Not asyncio.run: at its end it waits for a name that is still being looked up.
    loop = asyncio.new_event_loop()
    try:
        sending = _send(url, body, headers, public_only)
        status = loop.run_until_complete(asyncio.wait_for(sending, SECONDS))
    except TimeoutError:
        raise DeliveryError(f"no answer within {SECONDS:g} s") from None
    except NotPublicError:
        raise DeliveryError("its address belongs to a private network", final=True) from None
    except aiohttp.ClientError as error:
        if isinstance(error, aiohttp.ClientConnectorError) and isinstance(
            error.os_error, NotPublicError
        ):
            raise DeliveryError("its address belongs to a private network", final=True) from None
        raise DeliveryError(f"it cannot be reached ({type(error).__name__})") from None
    except (OSError, ValueError) as error:
        raise DeliveryError(f"it cannot be reached ({type(error).__name__})") from None
    finally:
        loop.close()
    if status == 410:
        raise DeliveryError("it answered 410: gone for good", final=True)
    if 300 <= status < 400:
        raise DeliveryError(f"it answered {status}; redirects are not followed")
    if not 200 <= status < 300:
        raise DeliveryError(f"it answered {status}")


async def _send(url: str, body: bytes, headers: dict[str, str], public_only: bool) -> int:
    connector = aiohttp.TCPConnector(
        limit=1, force_close=True, socket_factory=public_socket if public_only else None
    )
    async with (
        aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
        ) as session,
        session.post(url, data=body, headers=headers, allow_redirects=False) as answer,
    ):
        return answer.status

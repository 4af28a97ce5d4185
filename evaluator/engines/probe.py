"""A short question to an endpoint: is it there, does it take the key, has it the model?"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from evaluator.engines.endpoint import Endpoint, Greeting, RefusedError, greeting
from evaluator.errors import InputError

SECONDS = 5.0
_NO_SUCH_LIST = (404, 405, 501)  # somebody is there all the same


@dataclass(frozen=True, slots=True)
class Probe:
    """What an endpoint answered. ``models`` is empty where it has no list to be asked for."""

    models: tuple[str, ...]
    greeting: Greeting


def probe(
    base_url: str,
    *,
    model: str,
    key: str | None = None,
    public_only: bool = False,
    seconds: float = SECONDS,
) -> Probe:
    """Ask for the endpoint's models; takes ``seconds`` at most, whatever the other side does.

    Raises InputError with a sentence where nobody is there, the key is refused or the address is
    not allowed.
    """
    endpoint = Endpoint(base_url, key=key, timeout_seconds=seconds, public_only=public_only)
    # Not asyncio.run: at its end it waits for a name that is still being looked up.
    loop = asyncio.new_event_loop()
    try:
        listed = loop.run_until_complete(asyncio.wait_for(endpoint.models(seconds), seconds))
    except TimeoutError:
        raise InputError(
            f"endpoint {endpoint.url}: no answer within {seconds:g} s; check base_url and that the "
            "server is up."
        ) from None
    except RefusedError as refusal:
        if refusal.status in _NO_SUCH_LIST:
            return Probe((), Greeting())
        raise InputError(f"endpoint {endpoint.url}: {refusal}.") from None
    finally:
        loop.close()
    return Probe(tuple(str(each["id"]) for each in listed), greeting(listed, model))

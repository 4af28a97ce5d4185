"""One request to an OpenAI-compatible endpoint: what is sent, and what the answer amounts to."""

from __future__ import annotations

import email.utils
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from evaluator.engines.addresses import NotPublicError, public_socket
from evaluator.errors import InputError
from evaluator.records import FinishReason

_CONNECT_SECONDS = 10.0
_GREET_SECONDS = 10.0
_MOST_BYTES = 64 << 20  # of one answer: 32,768 tokens are a few hundred thousand
_MOST_COUNT = 2**31 - 1  # of tokens; what is more was not counted
_MOST_COMPLAINT = 300  # characters of an endpoint's own words in a sentence

_RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
_DOWN = frozenset({502, 503, 504, 521, 522, 523})
_OVERLOADED = frozenset({429, 503, 529})
_OWN_FAULT = frozenset({400, 413, 422})  # may be this one prompt's, once others were answered

# What switches off a server's own sampling defaults (it may read the model's generation_config) and
# keeps special tokens in the text (thinking tags may be among them), by the name under which it
# lists its models. Other servers refuse fields that they do not know.
_OFF = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "skip_special_tokens": False}
NEUTRAL: Mapping[str, Mapping[str, float]] = {
    "vllm": _OFF,
    "sglang": _OFF,
    "llamacpp": {"top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0},
}


# OpenAI's own words, and what other servers behind the same interface say instead.
_REASONS = {
    **dict.fromkeys(("stop", "eos", "eos_token", "end_turn", "stop_sequence"), FinishReason.STOP),
    **dict.fromkeys(("length", "max_tokens", "model_length"), FinishReason.LENGTH),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What an endpoint returned for one request; tokens are None where it did not count."""

    text: str
    reasoning: str | None
    finish_reason: FinishReason
    prompt_tokens: int | None
    completion_tokens: int | None


@dataclass(frozen=True, slots=True)
class Greeting:
    """What an endpoint says of itself before it is used; None where it does not say."""

    server: str | None = None
    context_tokens: int | None = None


class RefusedError(Exception):
    """No completion came. ``transient``: the same request may succeed later.

    ``status`` is the HTTP status (None where no answer came), ``wait_seconds`` what the endpoint
    asked for.
    """

    def __init__(
        self,
        sentence: str,
        *,
        status: int | None = None,
        transient: bool = True,
        wait_seconds: float | None = None,
    ) -> None:
        super().__init__(sentence)
        self.status = status
        self.transient = transient
        self.wait_seconds = wait_seconds

    @property
    def overloaded(self) -> bool:
        """Whether fewer requests are asked for."""
        return self.status in _OVERLOADED

    @property
    def down(self) -> bool:
        """Whether this speaks of the endpoint, not of the request."""
        return self.status is None or self.status in _DOWN

    @property
    def own_fault(self) -> bool:
        """Whether this may be the one request's own fault."""
        return self.status in _OWN_FAULT


class Endpoint:
    """An address, a key and the means to ask. The key stands in no message, repr or exception.

    With ``public_only`` no connection is made to an address of a private network.
    """

    def __init__(
        self, base_url: str, *, key: str | None, timeout_seconds: float, public_only: bool = False
    ) -> None:
        self.url = checked_url(base_url)
        self._key = key
        self._public_only = public_only
        self._timeout = aiohttp.ClientTimeout(
            total=timeout_seconds, sock_connect=min(_CONNECT_SECONDS, timeout_seconds)
        )

    def session(self) -> aiohttp.ClientSession:
        """Connections that are kept; to be closed by the caller."""
        headers = {"Content-Type": "application/json", "User-Agent": "retort"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        return aiohttp.ClientSession(
            headers=headers,
            timeout=self._timeout,
            connector=aiohttp.TCPConnector(
                limit=0, socket_factory=public_socket if self._public_only else None
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def greet(self, model: str) -> Greeting:
        """Ask for the list of models; raises RefusedError where nobody is there or the key is bad.

        Many endpoints have no such list: any other answer says only that somebody is there.
        """
        try:
            listed = await self.models(_GREET_SECONDS)
        except TimeoutError:
            return Greeting()
        except RefusedError as refusal:
            if refusal.status in (None, 401, 403):
                raise
            return Greeting()
        return greeting(listed, model)

    async def models(self, seconds: float) -> list[Mapping[str, Any]]:
        """The endpoint's list of models, as it gives it: an ``id`` in each.

        Raises RefusedError where it gives none, TimeoutError after ``seconds``.
        """
        limit = aiohttp.ClientTimeout(total=seconds, sock_connect=seconds / 2)
        async with self.session() as session:
            status, headers, data = await self._exchange(session, "GET", "models", None, limit)
        if status != 200:
            raise self._refusal(status, headers, data)
        try:
            listed = json.loads(data)["data"]
            return [each for each in listed if isinstance(each["id"], str)]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise RefusedError("its list of models cannot be read", status=status) from None

    async def ask(self, session: aiohttp.ClientSession, path: str, body: bytes) -> Answer:
        """Send one request; raises RefusedError when no completion came of it."""
        try:
            status, headers, data = await self._exchange(session, "POST", path, body, self._timeout)
        except TimeoutError:
            raise RefusedError(f"no answer within {self._timeout.total:g} s") from None
        if status != 200:
            raise self._refusal(status, headers, data)
        try:
            answer = json.loads(data)
        except (ValueError, RecursionError):
            raise RefusedError("the answer is not whole JSON", status=200) from None
        if isinstance(answer, dict) and isinstance(answer.get("error"), dict):
            code = _count(answer["error"].get("code"))
            raise self._refusal(code or 500, headers, data)
        return read_answer(answer)

    async def _exchange(
        self,
        session: aiohttp.ClientSession,
        method: str,
        path: str,
        body: bytes | None,
        limit: aiohttp.ClientTimeout,
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body; raises RefusedError or TimeoutError where none came."""
        try:
            # A redirect is not followed: the key is for this host alone.
            async with session.request(
                method, f"{self.url}/{path}", data=body, allow_redirects=False, timeout=limit
            ) as response:
                chunks, size = [], 0
                async for chunk in response.content.iter_any():
                    chunks.append(chunk)
                    size += len(chunk)
                    if size > _MOST_BYTES:
                        raise RefusedError(
                            f"the answer has more than {_MOST_BYTES} bytes", status=200
                        )
                return response.status, response.headers, b"".join(chunks)
        except aiohttp.ConnectionTimeoutError:
            raise RefusedError(f"no connection within {limit.sock_connect:g} s") from None
        except TimeoutError:
            raise
        except aiohttp.ClientConnectorCertificateError as error:
            raise RefusedError(
                f"its certificate is not trusted ({error.certificate_error})", transient=False
            ) from None
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, NotPublicError):
                raise RefusedError(
                    "its address belongs to a private network, which is not asked unless the "
                    "setting RETORT_ALLOW_PRIVATE_ENDPOINTS allows it",
                    transient=False,
                ) from None
            raise RefusedError(f"no connection ({error.strerror or error.os_error})") from None
        except (aiohttp.ClientError, OSError) as error:
            raise RefusedError(f"the connection broke ({type(error).__name__})") from None

    def _refusal(self, status: int, headers: Mapping[str, str], data: bytes) -> RefusedError:
        if status in (401, 403):
            # Its own words may repeat a part of the key.
            return RefusedError(
                f"HTTP {status}: the key is missing or not accepted", status=status, transient=False
            )
        if 300 <= status < 400:
            host = urlsplit(headers.get("Location", "")).netloc.rpartition("@")[2]
            return RefusedError(
                f"HTTP {status}: it redirects{f' to {host}' if host else ''}, which is not "
                "followed; give the final address",
                status=status,
                transient=False,
            )
        words, code = _complaint(data)
        if self._key:
            words = words.replace(self._key, "***")
        return RefusedError(
            f"HTTP {status}{f': {words}' if words else ''}",
            status=status,
            transient=status in _RETRIED and code != "insufficient_quota",
            wait_seconds=_retry_after(headers),
        )


def greeting(listed: Sequence[Mapping[str, Any]], model: str) -> Greeting:
    """What a list of models says of ``model`` and of the server behind it."""
    entries = [each for each in listed if each["id"] == model]
    if len(entries) != 1:
        return Greeting()
    server = entries[0].get("owned_by")
    return Greeting(
        server=server if isinstance(server, str) and server in NEUTRAL else None,
        context_tokens=_count(entries[0].get("max_model_len")),
    )


def checked_url(base_url: str) -> str:
    """``base_url`` without a slash at its end; raises InputError for anything but a plain address.

    A key in the address would reach logs and reports.
    """
    try:
        parts = urlsplit(base_url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise InputError(f"base_url: it is no address ({error}).") from None
    if parts.scheme not in ("http", "https") or not host:
        raise InputError("base_url: give an address such as http://127.0.0.1:8000/v1.")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise InputError(
            "base_url: leave out user, password and query; a key is read from the environment."
        )
    return base_url.rstrip("/")


def check_key(key: str, field: str) -> None:
    """Raise InputError naming ``field`` for a key that cannot stand in a header."""
    if not key.isascii() or not key.isprintable():
        raise InputError(f"{field}: the key holds a character that no key has; copy it again.")


def read_answer(answer: Any) -> Answer:
    """Read a response body of either interface; raises RefusedError for any other shape.

    Thinking may come in a field of its own (``reasoning_content``, ``reasoning``) or as a part of
    the content (``{"type": "thinking"}``).
    """
    try:
        choice = answer["choices"][0]
        message = choice["message"] if "message" in choice else {"content": choice["text"]}
        content = message.get("content")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise RefusedError("the answer holds no choice", status=200) from None
    texts: list[str] = []
    thoughts = [
        value
        for field in ("reasoning_content", "reasoning")
        if isinstance(value := message.get(field), str)
    ][:1]
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict):
            (thoughts if part.get("type") == "thinking" else texts).append(_flat(part))
    reason = choice.get("finish_reason")
    if reason in ("error", "abort"):  # the server gave up in the middle of the response
        raise RefusedError(f"the response ended with finish_reason {reason!r}", status=200)
    usage = answer.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    return Answer(
        text="".join(texts),
        reasoning="".join(thoughts) or None,
        finish_reason=_REASONS.get(str(reason).lower(), FinishReason.UNKNOWN),
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
    )


def _flat(part: Mapping[str, Any]) -> str:
    """The text of a part of a message's content; thinking may be a list of parts in turn."""
    inner = part.get("text", part.get("thinking"))
    if isinstance(inner, list):
        return "".join(_flat(each) for each in inner if isinstance(each, dict))
    return inner if isinstance(inner, str) else ""


def _count(value: Any) -> int | None:
    counts = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_COUNT
    return value if counts else None


def _complaint(data: bytes) -> tuple[str, str | None]:
    """What an endpoint says went wrong, in one line, and its code."""
    code = None
    text = data[:20_000].decode("utf-8", "replace")
    try:
        value = json.loads(data)
        value = value.get("error", value) if isinstance(value, dict) else value
        if isinstance(value, dict):
            code = value.get("code") or value.get("type")
            value = value.get("message", value.get("detail", value))
        text = value if isinstance(value, str) else json.dumps(value)
    except (ValueError, RecursionError):
        text = "" if text.lstrip().startswith("<") else text  # a proxy's page
    line = " ".join(text.split()).rstrip(".")
    return (
        line if len(line) <= _MOST_COMPLAINT else line[:_MOST_COMPLAINT] + "…",
        code if isinstance(code, str) else None,
    )


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait (RFC 9110 §10.2.3: a number or a date); None where not said."""
    value = headers.get("Retry-After")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, seconds) if seconds == seconds else None  # noqa: PLR0124 - not a number

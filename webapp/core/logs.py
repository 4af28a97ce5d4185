"""Logs: one line per event, which says what it is about by ids alone, never by names.

Whatever a name, a problem's id or a model's text holds, a line stays one line: JSON lines are plain
ASCII, lines for people have every other character escaped. Known secrets are struck out last.
"""

from __future__ import annotations

import contextvars
import json
import logging
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, ParamSpec, TypeVar

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter as BaseJsonFormatter

from evaluator.terminal import printable

# What Django puts beside its lines: objects, whose texts hold names and queries.
_OBJECTS = ("request", "server_time")
_SHORTEST_SECRET = 8  # characters; shorter ones would strike out what is no secret
_API_TOKEN = re.compile(r"retort_[A-Za-z0-9_-]{43}")  # webapp/api/tokens.py
_LEASE_DIGITS = 8
STRUCK_OUT = "[secret]"

P = ParamSpec("P")
R = TypeVar("R")

_ids: contextvars.ContextVar[Mapping[str, Any]] = contextvars.ContextVar(
    "log_ids", default=MappingProxyType({})
)
# Of this process; a worker adds what it is called.
_process: dict[str, Any] = {"host": os.environ.get("RETORT_HOST") or socket.gethostname()}


def identify(worker: str) -> None:
    """Say in every line of this process which worker it is."""
    _process["worker"] = worker


@contextmanager
def about(**ids: Any) -> Iterator[None]:
    """Add ids (run, stage, shard, lease, request_id, user) to every line that is logged inside."""
    token = _ids.set({**_ids.get(), **ids})
    try:
        yield
    finally:
        _ids.reset(token)


def add(**ids: Any) -> None:
    """Add ids to the lines of the innermost :func:`about`, once they are known."""
    _ids.set({**_ids.get(), **ids})


def carried(function: Callable[P, R]) -> Callable[P, R]:
    """``function`` for another thread, whose lines carry the ids of this one."""
    context = contextvars.copy_context()

    def call(*arguments: P.args, **named: P.kwargs) -> R:
        return context.run(function, *arguments, **named)

    return call


def short_lease(token: str) -> str:
    """A lease's token as logs name it; the whole is what gives the right to a shard."""
    return token[:_LEASE_DIGITS]


class Ids(logging.Filter):
    """Puts the ids of the moment on each record; what the line itself says comes first."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep every record."""
        for key, value in (*_process.items(), *_ids.get().items()):
            record.__dict__.setdefault(key, value)
        return True


class _Secrets:
    """Strikes out what must never be read, as it is and as Python and JSON spell it."""

    def __init__(self, secrets: Sequence[str | None]) -> None:
        long = {each for each in secrets if each is not None and len(each) >= _SHORTEST_SECRET}
        shown = long | {repr(each)[1:-1] for each in long}
        spelt = shown | {printable(each) for each in shown}
        spelt |= {json.dumps(each)[1:-1] for each in shown}
        self._spelt = sorted(spelt, key=len, reverse=True)

    def strike_out(self, line: str) -> str:
        for secret in self._spelt:
            line = line.replace(secret, STRUCK_OUT)
        return _API_TOKEN.sub(STRUCK_OUT, line)


class JsonFormatter(BaseJsonFormatter):
    """Time, level, logger and message, then the ids and whatever ``extra`` brought."""

    def __init__(self, secrets: Sequence[str | None] = ()) -> None:
        super().__init__(
            "%(message)s",
            rename_fields={"exc_info": "exception"},
            reserved_attrs=[*RESERVED_ATTRS, *_OBJECTS],
            json_ensure_ascii=True,
        )
        self._secrets = _Secrets(secrets)

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        """Put what every line has first."""
        log_data |= {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        super().add_fields(log_data, record, message_dict)

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        return self._secrets.strike_out(super().format(record))


class TextFormatter(logging.Formatter):
    """Lines for people: time, level, logger, message, ids; a traceback is set in below."""

    def __init__(self, secrets: Sequence[str | None] = ()) -> None:
        super().__init__()
        self._secrets = _Secrets(secrets)

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line, and one for each of its traceback's."""
        time = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S")
        ids = " ".join(
            f"{key}={printable(str(value))}"
            for key, value in vars(record).items()
            if key not in RESERVED_ATTRS and key not in (*_OBJECTS, "host", "message")
        )
        head = f"{time} {record.levelname:<7} {record.name}: {printable(record.getMessage())}"
        lines = [f"{head}  [{ids}]" if ids else head]
        if record.exc_info:
            trace = self.formatException(record.exc_info)
            lines += [f"    | {printable(line)}" for line in trace.splitlines()]
        return self._secrets.strike_out("\n".join(lines))

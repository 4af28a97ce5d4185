"""Slow and large requests. What of them is left to a proxy stands in docs/security.md."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.test import Client

from tests.serving import served, serving

ROOT = Path(__file__).resolve().parents[3]
HUNG_UP = 0  # a server that reads no further may not be heard any more
SLOW = 24  # connections; the server answers in 8 threads


@pytest.fixture
def server(process_environment: dict[str, str]) -> Iterator[int]:
    """The web server as ``manage.py up`` starts it."""
    with serving(process_environment) as port:
        yield port


def opened(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.sendall(b"POST /accounts/login/ HTTP/1.1\r\nHost: 127.0.0.1\r\n")
    return connection


@pytest.mark.django_db(transaction=True)
def test_who_never_ends_the_headers_holds_nobody_up(server: int) -> None:
    held = [opened(server) for _ in range(SLOW)]
    try:
        for _ in range(5):
            assert served(server)
    finally:
        for each in held:
            each.close()


def status_of(port: int, head: str, body: bytes = b"") -> int:
    """The status that a request by hand is answered with; the server may hang up early."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        with contextlib.suppress(ConnectionResetError):
            return int(connection.recv(65536).split()[1])
    return HUNG_UP


@pytest.mark.django_db(transaction=True)
def test_many_and_long_headers_and_bodies_without_a_length_are_refused(server: int) -> None:
    get = "GET /accounts/login/ HTTP/1.1\nHost: 127.0.0.1"
    post = "POST /api/v1/runs/distil HTTP/1.1\nHost: 127.0.0.1\nContent-Type: application/json"
    few = "".join(f"\nX-{i}: 1" for i in range(50))
    assert status_of(server, get + few) == 200
    assert status_of(server, get + "".join(f"\nX-{i}: 1" for i in range(5000))) in (431, HUNG_UP)
    assert status_of(server, get + "\nCookie: " + "a" * 2_000_000) in (431, HUNG_UP)
    chunked = post + "\nTransfer-Encoding: chunked"
    assert status_of(server, chunked, b"2\r\n{}\r\n0\r\n\r\n") == 411
    # Of bodies that lie about their length: more than is taken, and less than comes.
    assert status_of(server, post + "\nContent-Length: 99999999999", b"{}") == 401
    assert status_of(server, post + "\nContent-Length: 1", b"{" + b" " * 10) == 401
    assert status_of(server, post + "\nContent-Length: -1", b"{}") == 400
    assert served(server)


@pytest.mark.django_db
def test_a_form_that_is_too_large_is_refused(client: Client, user: object) -> None:
    client.force_login(user)  # type: ignore[arg-type]
    for body, kind in (
        ({"yaml": "x" * 3_000_000}, "application/x-www-form-urlencoded"),
        ("&".join(f"a{i}=1" for i in range(3000)), "application/x-www-form-urlencoded"),
    ):
        data = body if isinstance(body, str) else "yaml=" + body["yaml"]
        answer = client.post("/runs/distil/", data, content_type=kind)
        assert answer.status_code == 400
        assert b"too large" in answer.content
